// SwiftPM needs one source file per C target; the module is its header.
#include "mla_kernel_abi.h"
