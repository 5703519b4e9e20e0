/* A disk that fails: preloaded into the daemon and its children, it counts their operations under one folder.

   FAULTY_ROOT   the folder
   FAULTY_STATE  a file of two int64, shared by all processes: operations so far, and which one fails (0: none;
                 -1: all that need room on the disk, until it is 0 again)
   FAULTY_ERRNO  the number of the error

   cc -shared -fPIC -O2 -o faulty_disk.so faulty_disk.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int64_t *state;
static const char *root;
static size_t root_length;
static int error_number;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    root = getenv("FAULTY_ROOT");
    const char *file = getenv("FAULTY_STATE"), *number = getenv("FAULTY_ERRNO");
    if (!root || !file || !number) return;
    root_length = strlen(root);
    error_number = atoi(number);
    int fd = REAL(open)(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) state = map;
}

/* Counts one operation; 1 if it fails. */
static int strikes_at(int needs_room) {
    int64_t number = __atomic_add_fetch(&state[0], 1, __ATOMIC_SEQ_CST);
    int64_t wanted = __atomic_load_n(&state[1], __ATOMIC_SEQ_CST);
    if (wanted < 0 ? !needs_room : number != wanted) return 0;
    errno = error_number;
    return 1;
}

static int strikes(void) { return strikes_at(0); }

static int strikes_for_room(void) { return strikes_at(1); }

/* Like strikes_for_room, for what makes a new name: what is there already needs none. */
static int strikes_for_name(int fd, const char *path) {
    struct stat facts;
    int missing = fstatat(fd, path, &facts, AT_SYMLINK_NOFOLLOW) != 0;
    return strikes_at(missing);
}

static int inside(const char *path) { return strncmp(path, root, root_length) == 0; }

static int fd_inside(int fd) {
    char link[64], path[PATH_MAX];
    if (!state) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

static int at_inside(int fd, const char *path) {
    if (!state || !path) return 0;
    if (path[0] == '/') return inside(path);
    if (fd != AT_FDCWD) return fd_inside(fd);
    char here[PATH_MAX];
    return getcwd(here, sizeof here) && inside(here);
}

ssize_t write(int fd, const void *data, size_t count) {
    if (fd > 2 && fd_inside(fd) && strikes_for_room()) return -1;
    return REAL(write)(fd, data, count);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    if (fd_inside(fd) && strikes_for_room()) return -1;
    return REAL(pwrite64)(fd, data, count, offset);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { return pwrite64(fd, data, count, offset); }

int fsync(int fd) { return fd_inside(fd) && strikes() ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return fd_inside(fd) && strikes() ? -1 : REAL(fdatasync)(fd); }

int ftruncate64(int fd, off64_t length) { return fd_inside(fd) && strikes() ? -1 : REAL(ftruncate64)(fd, length); }

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int rename(const char *from, const char *to) {
    return at_inside(AT_FDCWD, to) && strikes() ? -1 : REAL(rename)(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    return at_inside(to_fd, to) && strikes() ? -1 : REAL(renameat)(from_fd, from, to_fd, to);
}

int mkdir(const char *path, mode_t mode) {
    return at_inside(AT_FDCWD, path) && strikes_for_name(AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode);
}

int mkdirat(int fd, const char *path, mode_t mode) {
    return at_inside(fd, path) && strikes_for_name(fd, path) ? -1 : REAL(mkdirat)(fd, path, mode);
}

int unlink(const char *path) { return at_inside(AT_FDCWD, path) && strikes() ? -1 : REAL(unlink)(path); }

int unlinkat(int fd, const char *path, int flags) {
    return at_inside(fd, path) && strikes() ? -1 : REAL(unlinkat)(fd, path, flags);
}

int rmdir(const char *path) { return at_inside(AT_FDCWD, path) && strikes() ? -1 : REAL(rmdir)(path); }

#define OPENS(name, before, before_names)                                                   \
    int name before {                                                                       \
        mode_t mode = 0;                                                                    \
        if (flags & O_CREAT) {                                                              \
            va_list rest;                                                                   \
            va_start(rest, flags);                                                          \
            mode = va_arg(rest, mode_t);                                                    \
            va_end(rest);                                                                   \
            if (at_inside(at, path) && strikes_for_name(at, path)) return -1;                                \
        }                                                                                   \
        return REAL(name) before_names;                                                     \
    }
#define at AT_FDCWD
OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
#undef at
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))
