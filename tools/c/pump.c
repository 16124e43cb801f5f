/* What an idle supervisor is, and how much output is written as lines of a journal: both for the processor itself.
 *
 * tools/machine_code.py compiles this into nbcontain/linux/pump_code.py. No library, no data, no address but STATE: it
 * runs wherever it lies. `lines` is its first byte, and is called by whoever has it in memory; `_start` is where a
 * program begins that consists of it and of a `struct state` at STATE (nbcontain/linux/little_pump.py lays that out).
 */

#include "kernel.h"

#define STATE ((struct state *)0x410000)
#define RECORD_BYTES 8192
#define FDS 8

struct pollfd { int fd; short events, revents; };
struct execution { const char *path; char **argv, **envp; };

struct state {
    word fds;                   /* so many are polled, */
    word streams;               /* and the first ones of them are the program's outputs: */
    struct pollfd polled[FDS];
    struct { byte *head; word size; char *ours; } stream[FDS];
                                /* what comes after the time in their lines, and what our later self calls them */
    long journal;
    long limit;                 /* how large the journal may become; 0 is no limit */
    struct timespec wake;       /* when to awake by itself, by the monotonic clock; 0 is never */
    char *lost;                 /* 20 digits: how many bytes of output were lost */
    long ended;                 /* which of the polled is the container's end */
    struct execution whole;     /* the supervisor, from a sealed copy of that program */
    struct execution python;    /* the pump that is Python's, where that cannot be */
    char *name;                 /* of that copy, */
    char *copy_path;            /* and where it is executed: /proc/self/fd/ and room for ten digits, */
    char *copy;                 /* which begin here */
    byte *begin;                /* {"time": */
    byte *in, *out;             /* room for what was read, and for the line that it becomes */
};

/* --- lines of a journal: the same values as events.encode gives ------------------------------------------------ */

/* \u with four digits. */
static __attribute__((noinline)) byte *unit(byte *to, word code)
{
    *to++ = '\\', *to++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4) {
        byte digit = code >> shift & 15;
        *to++ = digit + (digit < 10 ? '0' : 'a' - 10);
    }
    return to;
}

/* How many bytes the character of UTF-8 has that begins here with one beyond ASCII; 1 if it is none (RFC 3629). */
static inline word character(const byte *at, const byte *end)
{
    word first = at[0], size = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
    if ((word)(end - at) < size)
        return 1;
    for (word n = 1; n < size; n++)
        if ((at[n] & 0xc0) != 0x80)
            return 1;
    if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] >= 0xa0) || (first == 0xf0 && at[1] < 0x90)
        || (first == 0xf4 && at[1] >= 0x90))
        return 1;
    return size;
}

/* A string of JSON in ASCII. A byte that is no UTF-8 is what Python's surrogateescape makes of it. */
static __attribute__((noinline)) byte *quoted(byte *to, const byte *from, const byte *end)
{
    for (;;) {
        if (end - from >= 8) {
            word eight, special;
            __builtin_memcpy(&eight, from, 8);
            __builtin_memcpy(to, &eight, 8);
            /* The lowest high bit is that of the first byte that cannot stay as it is: a control, ", \, DEL, or more. */
            special = eight | (eight - EACH(0x20)) | ((eight ^ EACH('"')) - EACH(1))
                | ((eight ^ EACH('\\')) - EACH(1)) | (eight + EACH(1));
            special &= EACH(0x80);
            if (!special) {
                from += 8, to += 8;
                continue;
            }
            special = __builtin_ctzl(special) / 8;
            from += special, to += special;
        } else if (from == end)
            return to;
        byte each = *from++, letter = 0;
        if (each >= 0x80) {
            word size = character(from - 1, end), code;
            if (size == 1)
                code = 0xdc00 + each;
            else {
                code = each & (0x7f >> size);
                while (--size)
                    code = code << 6 | (*from++ & 0x3f);
            }
            if (code >= 0x10000) {
                to = unit(to, 0xd7c0 + (code >> 10));
                code = 0xdc00 + (code & 0x3ff);
            }
            to = unit(to, code);
            continue;
        }
        if (each == '"' || each == '\\')
            letter = each;
        else if (each == '\n')
            letter = 'n';
        else if (each == '\t')
            letter = 't';
        else if (each == '\r')
            letter = 'r';
        else if (each == '\b')
            letter = 'b';
        else if (each == '\f')
            letter = 'f';
        if (letter)
            *to++ = '\\', *to++ = letter;
        else if (each >= 0x20 && each < 0x7f)
            *to++ = each;
        else
            to = unit(to, each);
    }
}

/* Write output as lines, each of RECORD_BYTES at most, that begin with `head`; give how many bytes they are. There
 * has to be room for six times as much, and eight bytes, and head and end of each line. */
__attribute__((section(".text.first")))
word lines(byte *to, const byte *head, word head_size, const byte *from, word size)
{
    byte *at = to;
    while (size) {
        word now = size < RECORD_BYTES ? size : RECORD_BYTES;
        at = copied(at, head, head_size);
        *at++ = '"';
        at = quoted(at, from, from + now);
        *at++ = '"', *at++ = '}', *at++ = '\n';
        from += now, size -= now;
    }
    return at - to;
}

#define MFD_CLOEXEC_AND_SEALING 3
#define F_SETFD 2
#define F_ADD_SEALS 1033
#define ALL_SEALS 15
#define EAGAIN -11
#define EINTR -4
#define SEEK_CUR 1
#define REALTIME 0
#define MONOTONIC 1

/* --- the pump -------------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void lose(struct state *my, word size)
{
    for (char *at = my->lost + 19; size; at--) {
        size += *at - '0';
        *at = '0' + size % 10;
        size /= 10;
    }
}

/* Where the line that is going to be written begins: {"time":1700000000.000000 */
static inline __attribute__((always_inline)) byte *timed(const struct state *my, byte *to)
{
    struct timespec now;
    call(CLOCK_GETTIME, REALTIME, (word)&now, 0, 0);
    word seconds = now.seconds, micros = (word)now.nanoseconds / 1000, digits = 1;
    for (word rest = seconds; rest >= 10; rest /= 10)
        digits++;
    to = copied(to, my->begin, 8);
    for (word n = digits; n--; seconds /= 10)
        to[n] = '0' + seconds % 10;
    to += digits;
    *to++ = '.';
    for (word n = 6; n--; micros /= 10)
        to[n] = '0' + micros % 10;
    return to + 6;
}

/* Take some output; whether the one who writes the next line has to begin with a line feed. */
static inline __attribute__((always_inline)) word taken(struct state *my, word which, word torn)
{
    struct pollfd *polled = &my->polled[which];
    long size = call(READ, polled->fd, (word)my->in, RECORD_BYTES, 0);
    if (size == EAGAIN || size == EINTR)
        return torn;
    if (size <= 0) {
        /* EIO is how a terminal ends. */
        call(CLOSE, polled->fd, 0, 0, 0);
        polled->fd = -1;
        for (char *at = my->stream[which].ours; *at > ' '; at++)
            *at = ' ';
        return torn;
    }
    byte *at = my->out;
    if (torn)
        *at++ = '\n';
    at = timed(my, at);
    at = copied(at, my->stream[which].head, my->stream[which].size);
    *at++ = '"';
    at = quoted(at, my->in, my->in + size);
    *at++ = '"', *at++ = '}', *at++ = '\n';
    long wanted = at - my->out, written;
    do
        written = call(WRITE, my->journal, (word)my->out, wanted, 0);
    while (written == EINTR);
    if (written == wanted)
        return 0;
    /* A full disk must not stop the container: it is drained on, and what was lost is counted. */
    lose(my, size);
    return written > 0 ? 1 : torn;
}

static inline __attribute__((always_inline)) void awaken(struct state *my)
{
    long file = call(OPEN_AT, AT_FDCWD, (word)my->whole.path, O_CLOEXEC, 0), done;
    long copy = call(MEMFD_CREATE, (word)my->name, MFD_CLOEXEC_AND_SEALING, 0, 0);
    if (file >= 0 && copy >= 0) {
        do
            done = call(SENDFILE, copy, file, 0, 1 << 30);
        while (done > 0);
        if (!done && !call(FCNTL, copy, F_ADD_SEALS, ALL_SEALS, 0) && !call(FCNTL, copy, F_SETFD, 0, 0)) {
            char *last = my->copy;
            for (word rest = copy; rest >= 10; rest /= 10)
                last++;
            last[1] = 0;
            for (word rest = copy; last >= my->copy; rest /= 10)
                *last-- = '0' + rest % 10;
            call(EXECVE, (word)my->copy_path, (word)my->whole.argv, (word)my->whole.envp, 0);
        }
    }
    if (copy >= 0)
        call(CLOSE, copy, 0, 0, 0);
    if (file >= 0)
        call(CLOSE, file, 0, 0, 0);
    call(EXECVE, (word)my->python.path, (word)my->python.argv, (word)my->python.envp, 0);
}

__attribute__((section(".text.start"), noreturn))
void _start(void)
{
    struct state *my = STATE;
    word torn = 0;
    for (;;) {
        struct timespec left, *longest = 0;
        word is_over = 0;
        long other = -1;
        if (my->wake.seconds) {
            call(CLOCK_GETTIME, MONOTONIC, (word)&left, 0, 0);
            left.seconds = my->wake.seconds - left.seconds;
            left.nanoseconds = my->wake.nanoseconds - left.nanoseconds;
            if (left.nanoseconds < 0)
                left.seconds--, left.nanoseconds += 1000000000;
            if (left.seconds < 0)
                left.seconds = left.nanoseconds = 0;
            longest = &left;
        }
        long ready = call(PPOLL, (word)my->polled, my->fds, (word)longest, 0);
        if (ready == 0)
            is_over = 1;
        for (word which = 0; ready > 0 && which < my->fds; which++) {
            if (!my->polled[which].revents)
                continue;
            if (which < my->streams)
                torn = taken(my, which, torn);
            else
                /* Seen to last: what was written before the end is read first. */
                other = other == my->ended ? other : (long)which;
        }
        if (my->limit && call(LSEEK, my->journal, 0, SEEK_CUR, 0) >= my->limit)
            is_over = 1;
        if (other < 0 && !is_over)
            continue;
        awaken(my);
        /* No memory, or no interpreter any more. The container is worth another try, unless it has ended. */
        if (other == my->ended)
            call(EXIT_GROUP, 0, 0, 0, 0);
        left.seconds = 1, left.nanoseconds = 0;
        call(NANOSLEEP, (word)&left, 0, 0, 0);
    }
}
