/* The plain members of a layer's tar, made on the disk: what Target._take does of them (nbcontain/store/unpack.py).
 *
 * tools/machine_code.py compiles this into nbcontain/linux/members_code.py; `members` is its first byte, and is called
 * by a worker (nbcontain/store/plain_members.py). Plain is a regular file whose data is at hand, a directory or a
 * symlink, whose header is written as nearly everybody writes it, in a directory that is open, where nothing has its
 * name. All else is left to Python, and so is what the kernel refuses: then it is as if nobody had tried.
 */

#include "kernel.h"

#define BLOCK 512
#define PLACES 128
#define NAME_BYTES 256          /* a prefix of 155, a slash, a name of 100 */
#define LINK_BYTES 100

enum { MODE, UID, GID, SIZE, TIME, NUMBERS };
enum { OTHERS, DIRECTORY, WAIT };

struct run {
    const byte *at, *end;       /* of the archive, from the next header on */
    word room, most;            /* so many members can be told of at once, and so many are to be */
    word waits;                 /* whether some before these are still to be made */
    word keeps_owners;          /* whether there are more ids than one, */
    long uid, gid;              /* and whom new files belong to */
    word flags;                 /* to make a file with (openat(2)) */
    word count;                 /* so many were made since they were told of; of each: */
    byte *kinds;                /* its type, */
    long *numbers;              /* those of its header: `room` modes, as many users' ids, and so on, */
    byte *names, *links;        /* its name and, of a symlink, where it leads: each with a zero byte behind it */
    word names_size, links_size;
    word size_bytes;            /* of all their data */
    word slot;                  /* the directory that is wanted: its name is there */
    int fds[PLACES];            /* the directories, or -1, */
    struct { word size; byte name[NAME_BYTES]; } places[PLACES];
                                /* by what stands before the last slash of a name */
};

struct member {
    byte kind;
    long numbers[NUMBERS];
    const byte *data;
    byte *leaf;                 /* what stands behind the last slash; there is a zero byte behind it */
    word head_size, name_size;  /* of what stands before that slash; of all, */
    word has_slash;             /* without one that stands behind it */
    byte name[NAME_BYTES + 1], link[LINK_BYTES + 1];
};

/* Digits up to the last byte, which ends them; -1 for what is written in another way. */
static __attribute__((noinline)) long octal(const byte *from, word size)
{
    long value = 0;
    for (; --size; from++) {
        byte digit = *from - '0';
        if (digit > 7)
            return -1;
        value = value << 3 | digit;
    }
    return *from && *from != ' ' ? -1 : value;
}

static inline word is_checked(const byte *header)
{
    word sums = 0, total;
    for (const byte *at = header; at < header + BLOCK; at += sizeof(word)) {
        /* Four sums at once, of 128 bytes each. */
        word eight;
        __builtin_memcpy(&eight, at, sizeof(word));
        sums += (eight & 0x00ff00ff00ff00ff) + (eight >> 8 & 0x00ff00ff00ff00ff);
    }
    total = (sums & 0xffff) + (sums >> 16 & 0xffff) + (sums >> 32 & 0xffff) + (sums >> 48);
    for (const byte *at = header + 148; at < header + 156; at++)
        total += ' ' - *at;
    return octal(header + 148, 7) == (long)total && !header[154] && header[155] == ' ';
}

/* Up to the first zero byte, if there is one. */
static __attribute__((noinline)) byte *text(byte *to, const byte *from, word size)
{
    for (; size && *from; size--)
        *to++ = *from++;
    return to;
}

/* Whether that stands there; of at most eight bytes. */
static inline __attribute__((always_inline)) word is(const byte *at, word value, word size)
{
    for (; size; size--, value >>= 8)
        if (*at++ != (value & 0xff))
            return 0;
    return 1;
}

#define USTAR_00 0x3030007261747375 /* ustar, a zero byte, 00: the last byte first, as the next ones */
#define TAR 0x00726174
#define WH 0x2e68772e

/* What the next header says; whether that is for us. */
static inline __attribute__((always_inline)) word understood(struct member *its, const byte *header, const byte *end)
{
    word rest = end - header;
    if (rest < BLOCK || !is_checked(header))
        return 0;
    its->kind = header[156];
    if (its->kind != '0' && its->kind != '2' && its->kind != '5')
        return 0;
    its->numbers[MODE] = octal(header + 100, 8);
    its->numbers[UID] = octal(header + 108, 8);
    its->numbers[GID] = octal(header + 116, 8);
    its->numbers[SIZE] = octal(header + 124, 12);
    its->numbers[TIME] = octal(header + 136, 12);
    for (word n = 0; n < NUMBERS; n++)
        if (its->numbers[n] < 0)
            return 0;
    its->numbers[MODE] &= 07777;
    its->data = header + BLOCK;
    /* With what fills its last block. */
    if ((word)its->numbers[SIZE] > ((rest - BLOCK) & -(word)BLOCK) || (its->kind != '0' && its->numbers[SIZE]))
        return 0;
    *text(its->link, header + 157, LINK_BYTES) = 0;
    if ((its->kind == '2') != !!its->link[0])
        return 0;

    byte *at = its->name, *last;
    if (header[345] && is(header + 257, USTAR_00, 8)) {
        /* star keeps times in the last bytes of the prefix. */
        if (is(header + 508, TAR, 4))
            return 0;
        at = text(at, header + 345, 155);
        *at++ = '/';
    }
    at = text(at, header, 100);
    its->has_slash = its->kind == '5' && at > its->name && at[-1] == '/';
    at -= its->has_slash;
    its->name_size = at - its->name;
    *at = 0;
    for (last = at; last > its->name && last[-1] != '/'; last--)
        ;
    its->leaf = last;
    its->head_size = last > its->name ? last - 1 - its->name : 0;
    /* None, ., .., or a whiteout. */
    return last[0] && !(last[0] == '.' && (!last[1] || (last[1] == '.' && !last[2]) || is(last, WH, 4)));
}

/* Where the directory stands that it goes into, or should stand. */
static inline word slot_of(const struct member *its)
{
    word hash = its->head_size;
    for (const byte *at = its->name; at < its->name + its->head_size; at++)
        hash = hash * 31 + *at;
    return (hash ^ hash >> 7) % PLACES;
}

static inline word is_there(const struct run *my, const struct member *its)
{
    if (my->fds[my->slot] < 0 || my->places[my->slot].size != its->head_size)
        return 0;
    for (word n = 0; n < its->head_size; n++)
        if (my->places[my->slot].name[n] != its->name[n])
            return 0;
    return 1;
}

/* Whether it is to be given to somebody else than its maker. */
static inline word is_anothers(const struct run *my, const struct member *its)
{
    return my->keeps_owners && (its->numbers[UID] != my->uid || its->numbers[GID] != my->gid);
}

static inline __attribute__((always_inline)) long filled(struct run *my, struct member *its, long file)
{
    const byte *at = its->data;
    long left = its->numbers[SIZE], done;
    for (; left; left -= done, at += done)
        if ((done = call(WRITE, file, (word)at, left, 0)) <= 0)
            return -1;
    if (is_anothers(my, its) && call(FCHOWN, file, its->numbers[UID], its->numbers[GID], 0))
        return -1;
    if ((is_anothers(my, its) || !my->keeps_owners || its->numbers[MODE] & 07000)
        && call(FCHMOD, file, its->numbers[MODE], 0, 0))
        return -1;
    struct timespec times[2] = {{its->numbers[TIME], 0}, {its->numbers[TIME], 0}};
    return call(UTIMENS_AT, file, 0, (word)times, 0);
}

static inline __attribute__((always_inline)) long linked(struct run *my, struct member *its, word parent)
{
    if (is_anothers(my, its)
        && call_5(FCHOWN_AT, parent, (word)its->leaf, its->numbers[UID], its->numbers[GID], AT_SYMLINK_NOFOLLOW))
        return -1;
    struct timespec times[2] = {{its->numbers[TIME], 0}, {its->numbers[TIME], 0}};
    return call(UTIMENS_AT, parent, (word)its->leaf, (word)times, AT_SYMLINK_NOFOLLOW);
}

/* Make it; whether it is there as it will be (a directory's owner and time are set at the end). */
static inline __attribute__((always_inline)) word made(struct run *my, struct member *its)
{
    word parent = my->fds[my->slot];
    long failed;
    if (!my->keeps_owners && its->kind != '5' && (its->numbers[UID] || its->numbers[GID]))
        return 0;
    if (its->kind == '5') {
        word mode = (its->numbers[MODE] & 07700) == 0700 ? its->numbers[MODE] : 0700;
        return !call(MKDIR_AT, parent, (word)its->leaf, mode, 0);
    }
    if (its->kind == '2') {
        if (call(SYMLINK_AT, (word)its->link, parent, (word)its->leaf, 0))
            return 0;
        failed = linked(my, its, parent);
    } else {
        long file = call(OPEN_AT, parent, (word)its->leaf, my->flags, its->numbers[MODE]);
        if (file < 0)
            return 0;
        failed = filled(my, its, file);
        call(CLOSE, file, 0, 0, 0);
    }
    if (failed)
        call(UNLINK_AT, parent, (word)its->leaf, 0, 0);
    return !failed;
}

/* Make members for as long as they are plain, `most` altogether; why the next one is not made. */
__attribute__((section(".text.first")))
word members(struct run *my)
{
    struct member its;
    for (; my->count < my->most; my->count++) {
        if (!understood(&its, my->at, my->end))
            return OTHERS;
        if (my->waits)
            return WAIT;
        my->slot = slot_of(&its);
        if (!is_there(my, &its)) {
            my->fds[my->slot] = -1;
            my->places[my->slot].size = its.head_size;
            copied(my->places[my->slot].name, its.name, its.head_size);
            return DIRECTORY;
        }
        if (!made(my, &its))
            return OTHERS;
        my->kinds[my->count] = its.kind;
        for (word n = 0; n < NUMBERS; n++)
            my->numbers[n * my->room + my->count] = its.numbers[n];
        my->size_bytes += its.numbers[SIZE];
        byte *end = copied(my->names + my->names_size, its.name, its.name_size);
        if (its.has_slash)
            *end++ = '/';
        *end++ = 0;
        my->names_size = end - my->names;
        if (its.kind == '2') {
            end = text(my->links + my->links_size, its.link, LINK_BYTES);
            *end++ = 0;
            my->links_size = end - my->links;
        }
        my->at = its.data + ((its.numbers[SIZE] + BLOCK - 1) & -(long)BLOCK);
    }
    return OTHERS;
}
