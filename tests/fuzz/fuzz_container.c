/* fuzz_container.c - frames of pods: hook_from_container and all behind it. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = run_begin();
    struct reader reader = {data, size};
    run_records(&run, &reader, FROM_CURL, FROM_LOCAL);
    run_end(&run);
    return 0;
}
