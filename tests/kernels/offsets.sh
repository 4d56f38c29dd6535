#!/usr/bin/env bash
# Where a key or a value lies is known to kernels/paged_kv.h alone: looks for products of a page, a
# slot or an element's size in whatever else sees the page pool. (What is private there, the compiler
# keeps.) usage: offsets.sh
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

number='[A-Za-z_.>(){}-]*\b(page|slot|number)\b[_.>)}]*'
size='[A-Za-z_.>(-]*(page_bytes|element_bytes|side_elements)[_()]*'
rules=("$number *\* *[A-Za-z_.>(-]*(bytes|stride|size|dim|block)" "\+ *[^,;]*\* *$size" "$size *\*"
  '\b(k|v|k_slot)_offset\(' 'element_bytes *(==|!=) *[24] *\?')
allowed='data_ \+ i \* page_bytes_' # HostPages: whole pages that were copied out of the pool

offsets() { # offsets FILE...: lines of code that compute one
  local rule
  for rule in "${rules[@]}"; do
    grep -nE "$rule" "$@" /dev/null
  done | grep -vE '^[^:]*:[0-9]+: *//' | grep -vE "$allowed" | sort -u
}

# Such lines have stood in kernels; they must be found.
samples=('page = pool + entry.page * g.page_bytes();'
  'convert(page + g.k_offset(head, d, slot) * g.element_bytes, type, n, to);'
  'const int64_t to_values = p.side_elements() * g.element_bytes;'
  'page * 2 * rows.side_elements() + rows.k_slot_offset(head, slot, 0);'
  'return data() + number * geometry_.page_bytes();'
  'std::memcpy(c.host, page_pool_.data() + c.page * bytes, size);'
  'const uint8_t* from = keys + slot * head_dim * 2;')
scratch=$(mktemp) || exit 1
trap 'rm -f "$scratch"' EXIT
for sample in "${samples[@]}"; do
  printf '%s\n' "$sample" >"$scratch"
  [ -n "$(offsets "$scratch")" ] || { echo "this script does not find: $sample"; exit 1; }
done

mapfile -t files < <(find kernels src/backend -name '*.h' -o -name '*.cpp' -o -name '*.cu')
found=$(offsets "${files[@]}" | grep -v '^kernels/paged_kv.h:')
[ -z "$found" ] && exit 0
echo "offsets into pages that kernels/paged_kv.h should compute (KvView):"
echo "$found"
exit 1
