/* A disk that remembers: preloaded into the daemon and its children, it writes down what they change under one folder.

   RECORDED_ROOT   the folder
   RECORDED_LOG    the file the records are added to; they lie in it in the order in which they happened
   RECORDED_LOCK   a file of one int64, shared by all processes

   cc -shared -fPIC -O2 -o recorded_disk.so recorded_disk.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int64_t *lock;
static int log_fd = -1;
static const char *root;
static size_t root_length;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* kind: c created, w written, t cut to a length, s synced, r renamed, u removed, m folder made.
   parent, other: inodes of the folders that hold the name, and the new name. */
struct record {
    char kind, pad[7];
    int64_t inode, parent, other, offset;
    int32_t name_length, new_length;
    int64_t data_length;
};

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("RECORDED_LOG"), *shared = getenv("RECORDED_LOCK");
    root = getenv("RECORDED_ROOT");
    if (!root || !file || !shared) return;
    root_length = strlen(root);
    int fd = REAL(open)(shared, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    log_fd = REAL(open)(file, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (map != MAP_FAILED && log_fd >= 0) lock = map;
}

static void take(void) {
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void give(void) { __atomic_store_n(lock, 0, __ATOMIC_RELEASE); }

static void note(char kind, int64_t inode, int64_t parent, const char *name, int64_t other, const char *new_name,
                 int64_t offset, const void *data, size_t length) {
    struct record record = {kind, {0}, inode, parent, other, offset, (int32_t)strlen(name), (int32_t)strlen(new_name),
                            (int64_t)length};
    struct iovec parts[] = {{&record, sizeof record},
                            {(void *)name, strlen(name)},
                            {(void *)new_name, strlen(new_name)},
                            {(void *)data, length}};
    size_t whole = sizeof record + parts[1].iov_len + parts[2].iov_len + length;
    if (REAL(writev)(log_fd, parts, 4) != (ssize_t)whole) abort();
}

static int inside(const char *path) { return strncmp(path, root, root_length) == 0; }

static int fd_inside(int fd) {
    char link[64], path[PATH_MAX];
    if (!lock || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

static int at_inside(int fd, const char *path) {
    char here[PATH_MAX];
    if (!lock || !path) return 0;
    if (path[0] == '/') return inside(path);
    if (fd != AT_FDCWD) return fd_inside(fd);
    return getcwd(here, sizeof here) && inside(here);
}

static int64_t inode_of(int fd) {
    struct stat facts;
    return fstat(fd, &facts) == 0 ? (int64_t)facts.st_ino : 0;
}

static int64_t inode_at(int fd, const char *path) {
    struct stat facts;
    return fstatat(fd, path, &facts, AT_SYMLINK_NOFOLLOW) == 0 ? (int64_t)facts.st_ino : 0;
}

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int64_t parent_of(int fd, const char *path) {
    struct stat facts;
    char folder[PATH_MAX];
    size_t length = (size_t)(name_of(path) - path);
    snprintf(folder, sizeof folder, "%.*s.", (int)length, path);
    return fstatat(fd, folder, &facts, 0) == 0 ? (int64_t)facts.st_ino : 0;
}

/* The lock is held around the operation and its record, so that both have the same order. */
#define RECORDED(type, here, operation, good, ...) \
    do {                                           \
        if (!(here)) return operation;             \
        take();                                    \
        type result = operation;                   \
        int kept = errno;                          \
        if (good) note(__VA_ARGS__);               \
        give();                                    \
        errno = kept;                              \
        return result;                             \
    } while (0)

ssize_t write(int fd, const void *data, size_t count) {
    if (fd <= 2 || !fd_inside(fd)) return REAL(write)(fd, data, count);
    take();
    struct stat facts;
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    int64_t offset = appends && fstat(fd, &facts) == 0 ? (int64_t)facts.st_size : (int64_t)lseek(fd, 0, SEEK_CUR);
    ssize_t result = REAL(write)(fd, data, count);
    int kept = errno;
    if (result > 0) note('w', inode_of(fd), 0, "", 0, "", offset, data, (size_t)result);
    give();
    errno = kept;
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    RECORDED(ssize_t, fd_inside(fd), REAL(pwrite64)(fd, data, count, offset), result > 0, 'w', inode_of(fd), 0, "", 0,
             "", offset, data, (size_t)result);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { return pwrite64(fd, data, count, offset); }

int ftruncate64(int fd, off64_t length) {
    RECORDED(int, fd_inside(fd), REAL(ftruncate64)(fd, length), result == 0, 't', inode_of(fd), 0, "", 0, "", length,
             "", 0);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
    RECORDED(int, fd_inside(fd), REAL(fsync)(fd), result == 0, 's', inode_of(fd), 0, "", 0, "", 0, "", 0);
}

int fdatasync(int fd) {
    RECORDED(int, fd_inside(fd), REAL(fdatasync)(fd), result == 0, 's', inode_of(fd), 0, "", 0, "", 0, "", 0);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    RECORDED(int, at_inside(to_fd, to), REAL(renameat)(from_fd, from, to_fd, to), result == 0, 'r',
             inode_at(to_fd, to), parent_of(from_fd, from), name_of(from), parent_of(to_fd, to), name_of(to), 0, "", 0);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int mkdirat(int fd, const char *path, mode_t mode) {
    RECORDED(int, at_inside(fd, path), REAL(mkdirat)(fd, path, mode), result == 0, 'm', inode_at(fd, path),
             parent_of(fd, path), name_of(path), 0, "", 0, "", 0);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int fd, const char *path, int flags) {
    RECORDED(int, at_inside(fd, path), REAL(unlinkat)(fd, path, flags), result == 0, 'u', 0, parent_of(fd, path),
             name_of(path), 0, "", 0, "", 0);
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

static int opened(int at, const char *path, int flags, mode_t mode) {
    if (!(flags & (O_CREAT | O_TRUNC)) || !at_inside(at, path)) return REAL(openat)(at, path, flags, mode);
    take();
    int missing = !inode_at(at, path);
    int fd = REAL(openat)(at, path, flags, mode);
    int kept = errno;
    if (fd >= 0 && missing) note('c', inode_of(fd), parent_of(at, path), name_of(path), 0, "", 0, "", 0);
    if (fd >= 0 && !missing && (flags & O_TRUNC)) note('t', inode_of(fd), 0, "", 0, "", 0, "", 0);
    give();
    errno = kept;
    return fd;
}

#define OPENS(name, before, at)             \
    int name before {                       \
        mode_t mode = 0;                    \
        if (flags & O_CREAT) {              \
            va_list rest;                   \
            va_start(rest, flags);          \
            mode = va_arg(rest, mode_t);    \
            va_end(rest);                   \
        }                                   \
        return opened(at, path, flags, mode); \
    }
OPENS(open, (const char *path, int flags, ...), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD)
OPENS(openat, (int at, const char *path, int flags, ...), at)
OPENS(openat64, (int at, const char *path, int flags, ...), at)
