/* fuzz_overlay.c - payloads of the tunnel port: hook_from_overlay and all behind it. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = run_begin();
    struct reader reader = {data, size};
    run_records(&run, &reader, FROM_NODE2, FROM_LEGACY);
    run_end(&run);
    return 0;
}
