// Everything a host needs.
#pragma once

#include "paddock/chat.h"
#include "paddock/engine.h"
#include "paddock/engine_stats.h"
#include "paddock/error.h"
#include "paddock/eviction.h"
#include "paddock/kv_cache.h"
#include "paddock/log.h"
#include "paddock/model.h"
#include "paddock/quality.h"
#include "paddock/reclaim.h"
#include "paddock/replay.h"
#include "paddock/runner.h"
#include "paddock/sampling.h"
#include "paddock/stats.h"
#include "paddock/tokenizer.h"
#include "paddock/version.h"
