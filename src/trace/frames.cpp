// A trace's file: its beginning, its frames and their checks.
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "trace/reader.h"

namespace paddock {
namespace trace {

uint32_t checksum(uint64_t frame, std::string_view bytes) {
  uint8_t number[8];
  for (int i = 0; i < 8; ++i) number[i] = static_cast<uint8_t>(frame >> (8 * i));
  const uLong begun = crc32(0, number, sizeof(number));
  return static_cast<uint32_t>(
      crc32_z(begun, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

namespace {

uint32_t u32_at(std::string_view bytes, uint64_t at) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<uint8_t>(bytes[at + static_cast<uint64_t>(i)]);
  }
  return value;
}

void check_begin(std::string_view bytes, const std::string& name) {
  const std::string_view begin = bytes.substr(0, std::min(bytes.size(), kTraceMagic.size()));
  if (begin != kTraceMagic.substr(0, begin.size())) {
    fail(ErrorCode::kBadFile,
         "'{}': byte 0: it does not begin with '{}', so it is no trace; record one with --kv-trace",
         name, kTraceMagic);
  }
  if (bytes.size() < kFileHeader) return;
  const uint32_t version = u32_at(bytes, kTraceMagic.size());
  if (version == kTraceVersion) return;
  fail(ErrorCode::kBadFile,
       "'{}': byte {}: it is of version {}, and this library reads {}; read it with the version "
       "that wrote it, or record it again",
       name, kTraceMagic.size(), version, kTraceVersion);
}

[[noreturn]] void refuse_frame(const std::string& name, uint64_t at, uint64_t frame,
                               const char* what) {
  fail(ErrorCode::kBadFile,
       "'{}': byte {}: {} of frame {} is damaged; copy the file again, record it again, or read "
       "what lies before: head -c {}",
       name, at, what, frame, at);
}

}  // namespace
}  // namespace trace

TraceExtent read_trace(std::string_view bytes, const std::string& name,
                       const std::function<void(const TraceRecord&)>& on_record) {
  trace::check_begin(bytes, name);
  TraceExtent extent;
  extent.total = bytes.size();
  if (bytes.size() < trace::kFileHeader) return extent;
  trace::Reader reader(name, on_record);
  uint64_t at = trace::kFileHeader;
  for (uint64_t frame = 0; bytes.size() - at >= trace::kFrameHeader; ++frame) {
    const uint32_t length = trace::u32_at(bytes, at);
    if (trace::checksum(frame, bytes.substr(at, 4)) != trace::u32_at(bytes, at + 4)) {
      trace::refuse_frame(name, at, frame, "the length");
    }
    const uint64_t begin = at + trace::kFrameHeader;
    if (bytes.size() - begin < length) break;  // cut off
    const std::string_view payload = bytes.substr(begin, length);
    if (trace::checksum(frame, payload) != trace::u32_at(bytes, at + 8)) {
      trace::refuse_frame(name, at, frame, "the contents");
    }
    reader.read_frame(payload, begin);
    at = begin + length;
  }
  extent.bytes = at;
  extent.records = reader.records();
  extent.is_whole = reader.is_ended() && at == bytes.size();
  return extent;
}

TraceExtent read_trace(const std::string& path,
                       const std::function<void(const TraceRecord&)>& on_record) {
  const auto refuse = [&] {
    fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot read '{}': {}", path,
         std::strerror(errno));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) refuse();
  std::string bytes;
  char part[65536];
  while (const size_t n = std::fread(part, 1, sizeof(part), file.get())) bytes.append(part, n);
  if (std::ferror(file.get()) != 0) refuse();
  return read_trace(std::string_view(bytes), path, on_record);
}

TraceSink trace_file(const std::string& path) {
  const std::shared_ptr<std::FILE> file(std::fopen(path.c_str(), "wb"), [](std::FILE* opened) {
    if (opened != nullptr) std::fclose(opened);
  });
  const auto refuse = [path] {
    fail(ErrorCode::kIo, "cannot write '{}': {}", path, std::strerror(errno));
  };
  if (file == nullptr) refuse();
  std::setvbuf(file.get(), nullptr, _IONBF, 0);  // whatever ends the process, frames are whole
  return [file, refuse](std::string_view bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file.get()) < bytes.size()) refuse();
  };
}

}  // namespace paddock
