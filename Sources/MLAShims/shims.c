#include "mla_shims.h"
