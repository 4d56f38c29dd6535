# Faults of the area "layout", and other orders of bytes in a page that nobody may notice: see faults.py.

source("kernels/paged_kv.h", "kernels_test cuda_small_ops_test cuda_mass_test cuda_prefill_test "
       "cuda_decode_test")
same("layout-001", "values lie before keys, on a CPU",
     "return «Sides{0, kKeys == KeyOrder::kByDim ? side_rows() : n_kv_heads * side_rows()}»;",
     "(kKeys == KeyOrder::kByDim ? Sides{side_rows(), 0} : Sides{0, n_kv_heads * side_rows()})",
     "the order of the sides is known in one place")
same("layout-002", "the last head lies first",
     "+ «head» * geometry_.template head_rows<kKeys>();",
     "(geometry_.n_kv_heads - 1 - head)",
     "the order of heads is known in one place")
same("layout-003", "a gap of one row behind each head's keys and its values",
     "int64_t side_rows() const { return «block_size»; }",
     "block_size + 1",
     "the size of a head, and so of a page, is known in one place")
same("layout-004", "a gap of one row behind each page",
     "int64_t page_rows() const { return «2 * n_kv_heads * side_rows()»; }",
     "2 * n_kv_heads * side_rows() + 1",
     "the size of a page is known in one place")
fault("layout-005", "on a CPU the last keys of a head lie where its first values do",
      "return Sides{0, kKeys == KeyOrder::kByDim ? «side_rows()» : n_kv_heads * side_rows()};",
      "side_rows() - 1")
fault("layout-006", "a value lies one row too near to its key",
      "return «(geometry_.template sides<kKeys>().values - geometry_.template sides<kKeys>().keys)» *",
      "(geometry_.template sides<kKeys>().values - geometry_.template sides<kKeys>().keys - 1)")
fault("layout-007", "dims of a key lie a slot too near",
      "return «int64_t{geometry_.block_size}» * element_bytes_;",
      "int64_t{geometry_.block_size - 1}")
fault("layout-008", "quantized types are taken",
      "if («geometry_.type == known.type») return true;",
      "true")
fault("layout-009", "a pool that is not aligned counts as aligned",
      "&& «reinterpret_cast<uintptr_t>(pool_) % n == 0»;",
      "true")
