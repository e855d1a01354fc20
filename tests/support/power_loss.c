/* Preloaded into a process: records everything that it does to files below a folder, so that a test can work out what
 * a power cut at any instant might have left on the disk. Built and used by power_loss.rs.
 *
 * SHIM_ROOT      the folder, absolute and without symbolic links
 * SHIM_LOG       where operations are appended, one write(2) each (the format: struct head)
 * SHIM_NO_SYNC   syncs of paths that contain this text do nothing and succeed: what a broken disk does
 * SHIM_DELAY_MS  every sync takes this long
 * SHIM_FAULTS    a file that may come and go. Of paths that contain TEXT, or end with it where a $ follows, "sync TEXT" makes
 *                syncs fail with EIO, "read TEXT" reads at a position, "open TEXT" opening; "write TEXT" makes writes end
 *                half-way with ENOSPC, "deny TEXT" makes writing, shortening and creating fail with EROFS
 *
 * One lock around each call and its record: the log is in the order in which things happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct head { /* all little-endian on the machines that we test on */
    uint32_t kind, first, second, unused; /* lengths of what follows */
    uint64_t inode, offset;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *no_sync, *faults;
static long delay_ms;
static int log_fd = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("SHIM_LOG"), *delay = getenv("SHIM_DELAY_MS");
    root = getenv("SHIM_ROOT");
    no_sync = getenv("SHIM_NO_SYNC");
    faults = getenv("SHIM_FAULTS");
    delay_ms = delay ? atol(delay) : 0;
    if (root && log)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int below(const char *path)
{
    size_t length;
    if (log_fd < 0 || !path)
        return 0;
    length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static void record(char kind, int fd, uint64_t offset, const void *first, size_t n, const void *second, size_t m)
{
    struct head head = {(uint32_t)kind, (uint32_t)n, (uint32_t)m, 0, 0, offset};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, n}, {(void *)second, m}};
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0)
        head.inode = st.st_ino;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)(sizeof head + n + m))
        abort();
}

static int path_of(int fd, char *path)
{
    char link[64];
    ssize_t n;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, PATH_MAX - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return below(path);
}

static int fault(const char *what, const char *path)
{
    char text[256];
    int fd = faults ? (int)syscall(SYS_openat, AT_FDCWD, faults, O_RDONLY | O_CLOEXEC, 0) : -1;
    ssize_t n;
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    if (strncmp(text, what, strlen(what)) != 0)
        return 0;
    const char *part = text + strlen(what) + 1;
    if (text[n - 1] != '$')
        return strstr(path, part) != NULL;
    text[n - 1] = 0;
    size_t length = strlen(part), all = strlen(path);
    return all >= length && strcmp(path + all - length, part) == 0;
}

/* What opening a path ends with: 0, or an error. */
static int refused(const char *path, int flags)
{
    if (!below(path))
        return 0;
    if (fault("open", path))
        return EIO;
    return (flags & O_CREAT) && fault("deny", path) ? EROFS : 0;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ENTER pthread_mutex_lock(&lock)
#define LEAVE(result)                                                         \
    do {                                                                      \
        int before = errno;                                                   \
        pthread_mutex_unlock(&lock);                                          \
        errno = before;                                                       \
        return result;                                                        \
    } while (0)

static int opened(int fd, int existed, int flags)
{
    char path[PATH_MAX];
    int e = errno;
    if (fd >= 0 && (flags & (O_CREAT | O_TRUNC)) && path_of(fd, path)) {
        if (!existed)
            record('C', fd, 0, path, strlen(path), "", 0);
        else if (flags & O_TRUNC)
            record('T', fd, 0, "", 0, "", 0);
    }
    errno = e;
    return fd;
}

#define OPEN(name)                                                            \
    int name(const char *path, int flags, ...)                                \
    {                                                                         \
        REAL(name);                                                           \
        va_list rest;                                                         \
        int mode, fd;                                                         \
        va_start(rest, flags);                                                \
        mode = va_arg(rest, int);                                             \
        va_end(rest);                                                         \
        ENTER;                                                                \
        int existed = access(path, F_OK) == 0, no = refused(path, flags);     \
        fd = no ? -1 : opened(real(path, flags, mode), existed, flags);       \
        errno = no ? no : errno;                                              \
        LEAVE(fd);                                                            \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                          \
    int name(int at, const char *path, int flags, ...)                        \
    {                                                                         \
        REAL(name);                                                           \
        va_list rest;                                                         \
        int mode, fd;                                                         \
        va_start(rest, flags);                                                \
        mode = va_arg(rest, int);                                             \
        va_end(rest);                                                         \
        ENTER;                                                                \
        int existed = faccessat(at, path, F_OK, 0) == 0;                      \
        fd = opened(real(at, path, flags, mode), existed, flags);             \
        LEAVE(fd);                                                            \
    }
OPENAT(openat)
OPENAT(openat64)

/* What a full disk lets through: half, a quarter, nothing. */
static size_t allowed(int fd, size_t n)
{
    char path[PATH_MAX];
    errno = ENOSPC;
    if (!path_of(fd, path))
        return n;
    if (fault("deny", path)) {
        errno = EROFS;
        return 0;
    }
    errno = ENOSPC;
    if (!fault("write", path))
        return n;
    errno = ENOSPC;
    return n < 64 ? 0 : n / 2;
}

#define PREAD(name, offset)                                                   \
    ssize_t name(int fd, void *bytes, size_t n, offset at)                    \
    {                                                                         \
        REAL(name);                                                           \
        char path[PATH_MAX];                                                  \
        if (!path_of(fd, path) || !fault("read", path))                       \
            return real(fd, bytes, n, at);                                    \
        errno = EIO;                                                          \
        return -1;                                                            \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

static void wrote(int fd, const void *bytes, ssize_t n, int64_t at)
{
    char path[PATH_MAX];
    int e = errno;
    if (n > 0 && path_of(fd, path))
        record('W', fd, (uint64_t)(at >= 0 ? at : lseek(fd, 0, SEEK_CUR) - n), "", 0, bytes, (size_t)n);
    errno = e;
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    REAL(write);
    ssize_t done = -1;
    if (fd <= 2)
        return real(fd, bytes, n);
    ENTER;
    size_t may = allowed(fd, n);
    if (may > 0 || n == 0) {
        done = real(fd, bytes, may);
        wrote(fd, bytes, done, -1);
    }
    LEAVE(done);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    /* the first part that is not empty is a legal short write */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len > 0)
            return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

#define PWRITE(name, offset)                                                  \
    ssize_t name(int fd, const void *bytes, size_t n, offset at)              \
    {                                                                         \
        REAL(name);                                                           \
        ssize_t done = -1;                                                    \
        ENTER;                                                                \
        size_t may = allowed(fd, n);                                          \
        if (may > 0 || n == 0) {                                              \
            done = real(fd, bytes, may, at);                                  \
            wrote(fd, bytes, done, at);                                       \
        }                                                                     \
        LEAVE(done);                                                          \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, offset)                                                \
    int name(int fd, offset length)                                           \
    {                                                                         \
        REAL(name);                                                           \
        char path[PATH_MAX];                                                  \
        ENTER;                                                                \
        int result = -1;                                                      \
        if (path_of(fd, path) && fault("deny", path))                         \
            errno = EROFS;                                                    \
        else                                                                  \
            result = real(fd, length);                                        \
        if (result == 0 && path_of(fd, path))                                 \
            record('T', fd, (uint64_t)length, "", 0, "", 0);                  \
        LEAVE(result);                                                        \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

static int sync_with(int (*real)(int), int fd)
{
    struct timespec delay = {delay_ms / 1000, delay_ms % 1000 * 1000000};
    char path[PATH_MAX];
    struct stat st;
    int result;
    if (!path_of(fd, path))
        return real(fd);
    nanosleep(&delay, NULL);
    if (no_sync && strstr(path + strlen(root), no_sync))
        return 0;
    ENTER;
    if (fault("sync", path)) {
        record('X', fd, 0, path, strlen(path), "", 0);
        errno = EIO;
        result = -1;
    } else {
        result = 0; /* the replay loses what is not synced: the disk need not be bothered */
        record(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 'D' : 'F', fd, 0, path, strlen(path), "", 0);
    }
    LEAVE(result);
}

int fsync(int fd)
{
    REAL(fsync);
    return sync_with(real, fd);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return sync_with(real, fd);
}

#define NAMES(name, kind, from, to, params, args)                             \
    int name params                                                           \
    {                                                                         \
        REAL(name);                                                           \
        ENTER;                                                                \
        int result = real args;                                               \
        if (result == 0 && (below(from) || below(to)))                        \
            record(kind, -1, 0, from, strlen(from), to, strlen(to));          \
        LEAVE(result);                                                        \
    }
NAMES(rename, 'R', from, to, (const char *from, const char *to), (from, to))
NAMES(link, 'L', from, to, (const char *from, const char *to), (from, to))
NAMES(linkat, 'L', from, to, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
NAMES(unlink, 'U', path, "", (const char *path), (path))
NAMES(rmdir, 'U', path, "", (const char *path), (path))

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    ENTER;
    int result = real(path, mode);
    if (result == 0 && below(path)) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        record('M', fd, 0, path, strlen(path), "", 0);
        close(fd);
    }
    LEAVE(result);
}
