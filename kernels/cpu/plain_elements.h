// Keys and values as float32, one by one: for the including files whose instruction set is none
// that is known to convert them. What attention_body.h wants of them is told there.

template <DType kType>
void convert(const uint8_t* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = load_element(from, kType, i);
}
template <DType kType>
Lanes elements(const uint8_t* from) {
  float to[sizeof(Lanes) / sizeof(float)];
  convert<kType>(from, sizeof(Lanes) / sizeof(float), to);
  return load_lanes<Lanes>(to);
}
