/* fuzz_host.c - frames of the host and of the wire: hook_from_host, hook_from_netdev; foreign records
 * reach hook_to_netdev. */
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = run_begin();
    struct reader reader = {data, size};
    run_records(&run, &reader, FROM_HOST, FROM_NETDEV);
    run_end(&run);
    return 0;
}
