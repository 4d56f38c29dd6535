// The element types of keys and values by the public KvType: rows of kKvElements, which knows them
// and their names.
#pragma once

#include "paddock/kv_cache.h"
#include "paged_kv.h"

namespace paddock {

/// Of any but kAuto, which an engine's setup has replaced before it asks.
DType element_type(KvType type);

}  // namespace paddock
