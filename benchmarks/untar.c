/* The yardstick for unpacking: a ustar archive onto a directory with the fewest system calls, on one thread.
 *
 * untar ARCHIVE DIRECTORY - names, owners, modes and times are kept; nothing is checked, so never for foreign archives.
 * An ordinary user's files are all his own, and he has no devices.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], kind, link[100];
    char magic[8], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};

struct late { char *name; mode_t mode; struct timespec times[2]; };

static unsigned long number(const char *text, int length) {
    unsigned long value = 0;
    for (int i = 0; i < length && text[i]; i++)
        if (text[i] >= '0' && text[i] <= '7') value = value * 8 + (text[i] - '0');
    return value;
}

int main(int argc, char **argv) {
    if (argc != 3) errx(2, "untar ARCHIVE DIRECTORY");
    int archive = open(argv[1], O_RDONLY);
    struct stat status;
    if (archive < 0 || fstat(archive, &status)) err(1, "%s", argv[1]);
    char *data = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, archive, 0);
    if (data == MAP_FAILED || chdir(argv[2])) err(1, "%s", argv[2]);
    umask(0);
    int is_root = !geteuid();
    struct late *directories = NULL;
    size_t count = 0, room = 0;
    char *long_name = NULL, *long_link = NULL;
    for (char *at = data; at + 512 <= data + status.st_size && *at;) {
        struct header *head = (struct header *)at;
        unsigned long size = number(head->size, 12);
        char *body = at + 512;
        at = body + (size + 511) / 512 * 512;
        if (head->kind == 'L') { long_name = strndup(body, size); continue; }
        if (head->kind == 'K') { long_link = strndup(body, size); continue; }
        if (head->kind == 'x' || head->kind == 'g') continue;
        char name[512], link[512];
        if (long_name) snprintf(name, sizeof name, "%s", long_name);
        else if (head->prefix[0] && !memcmp(head->magic, "ustar\0", 6))
            snprintf(name, sizeof name, "%.155s/%.100s", head->prefix, head->name);
        else snprintf(name, sizeof name, "%.100s", head->name);
        if (long_link) snprintf(link, sizeof link, "%s", long_link);
        else snprintf(link, sizeof link, "%.100s", head->link);
        free(long_name); free(long_link);
        long_name = long_link = NULL;
        mode_t mode = number(head->mode, 8);
        uid_t uid = is_root ? number(head->uid, 8) : 0;
        gid_t gid = is_root ? number(head->gid, 8) : 0;
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = number(head->mtime, 12)}};
        switch (head->kind) {
        case '5':
            if (mkdir(name, 0700) && access(name, F_OK)) err(1, "mkdir %s", name);
            if (is_root && chown(name, uid, gid)) err(1, "chown %s", name);
            if (count == room) directories = realloc(directories, (room = room * 2 + 64) * sizeof *directories);
            directories[count++] = (struct late){strdup(name), mode, {times[0], times[1]}};
            continue;
        case '2':
            if (symlink(link, name)) err(1, "symlink %s", name);
            break;
        case '1':
            if (linkat(AT_FDCWD, link, AT_FDCWD, name, 0)) err(1, "link %s", name);
            continue;
        case '3': case '4': case '6':
            if (!is_root && head->kind != '6') continue;
            if (mknod(name, mode | (head->kind == '3' ? S_IFCHR : head->kind == '4' ? S_IFBLK : S_IFIFO),
                      makedev(number(head->major, 8), number(head->minor, 8)))) err(1, "mknod %s", name);
            break;
        default: {
            int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, mode & 0777);
            if (fd < 0) err(1, "open %s", name);
            while (size) {
                ssize_t done = write(fd, body, size);
                if (done < 0) err(1, "write %s", name);
                body += done;
                size -= done;
            }
            if ((uid || gid) && fchown(fd, uid, gid)) err(1, "chown %s", name);
            if ((mode & 07000 || uid || gid) && fchmod(fd, mode)) err(1, "chmod %s", name);
            futimens(fd, times);
            close(fd);
            continue;
        }
        }
        if ((uid || gid) && lchown(name, uid, gid)) err(1, "chown %s", name);
        utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW);
    }
    while (count--) {
        chmod(directories[count].name, directories[count].mode);
        utimensat(AT_FDCWD, directories[count].name, directories[count].times, 0);
    }
    return 0;
}
