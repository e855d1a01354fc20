/* Preloaded into Fingerpost by benches/compare: every sync takes SLOW_SYNC_MS longer, as on a disk that is slower.
 * The sleep comes first, so that what is written meanwhile still goes into this sync, as it would on the disk's queue.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_for_the_disk(void)
{
    const char *text = getenv("SLOW_SYNC_MS");
    long ms = text ? atol(text) : 0;
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    if (ms > 0)
        nanosleep(&time, NULL);
}

int fsync(int fd)
{
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd)
{
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int sync_file_range(int fd, long from, long length, unsigned flags)
{
    wait_for_the_disk();
    return ((int (*)(int, long, long, unsigned))dlsym(RTLD_NEXT, "sync_file_range"))(fd, from, length, flags);
}
