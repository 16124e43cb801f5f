/* tools/c/members.c, given archives that are made up and a kernel that answers at random: `members ROUNDS SEED`.
 *
 * To be compiled with -fsanitize=address,undefined: all memory that it gets is as large as it is said to be. It says how
 * many members were made, and fails where what is told of them cannot be.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define timespec kernels_timespec
#define call_5 kernels_call_5
#define call kernels_call
#include "../../tools/c/kernel.h"
#undef call_5
#undef call

static word state;

static word some(word most)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % most;
}

#define CHECK(what) do { if (!(what)) { printf("not so: %s\n", #what); exit(1); } } while (0)

static word opened, looked;

static long call_5(long number, word a, word b, word c, word d, word e)
{
    (void)a, (void)d, (void)e;
    if (number == WRITE) {
        for (word n = 0; n < c; n++)
            looked += ((const byte *)b)[n];
        return some(20) ? (long)some(c) + 1 : some(2) ? 0 : -28;
    }
    if (number == OPEN_AT) {
        looked += strlen((const char *)b);
        if (!some(10))
            return -17;
        opened++;
        return 100;
    }
    if (number == CLOSE) {
        CHECK(opened);
        opened--;
        return 0;
    }
    if (number == MKDIR_AT || number == UNLINK_AT || number == FCHOWN_AT || (number == UTIMENS_AT && b))
        looked += strlen((const char *)b);
    if (number == SYMLINK_AT)
        looked += strlen((const char *)a) + strlen((const char *)c);
    return some(15) ? 0 : -1;
}

static long call(long number, word a, word b, word c, word d)
{
    return call_5(number, a, b, c, d, 0);
}

#include "../../tools/c/members.c"

static void field(byte *at, word size, word value)
{
    char digits[40];
    if (!some(40))
        value = some(2) ? some(1UL << 40) : 0777777777777;
    snprintf(digits, sizeof digits, "%0*lo", (int)size - 1, value);
    memcpy(at, digits, size - 1);
    at[size - 1] = some(9) ? 0 : ' ';
}

static void name(byte *at, word size)
{
    static const char *parts[] = {"a", "bc", "/", "/", ".", "..", ".wh.", "usr/", "\xff", "long name that goes on"};
    word length = some(8) ? some(30) : some(size + 1), done = 0;
    if (some(3)) {
        memcpy(at, "dir/file", 8);
        at[some(8)] = 'a' + some(26);
        return;
    }
    while (done < length) {
        const char *part = parts[some(10)];
        word count = strlen(part);
        if (count > length - done)
            count = length - done;
        memcpy(at + done, part, count);
        done += count;
    }
}

/* A header; how many blocks of data are behind it. */
static word header(byte *at)
{
    word size = some(4) ? some(1500) : 0, sum = 0;
    memset(at, 0, BLOCK);
    name(at, 100);
    at[156] = some(8) ? (byte)"00025"[some(5)] : some(256);
    if (some(4) && at[156] != '0')
        size = 0;
    field(at + 100, 8, some(4) ? 0644 : some(010000));
    field(at + 108, 8, some(3) ? 0 : some(3));
    field(at + 116, 8, some(3) ? 0 : some(3));
    field(at + 124, 12, size);
    field(at + 136, 12, some(1UL << 33));
    if (at[156] == '2' && some(9))
        name(at + 157, LINK_BYTES);
    memcpy(at + 257, some(3) ? "ustar\00000" : "ustar  \0", 8);
    if (!some(3))
        name(at + 345, 155);
    if (!some(20))
        memcpy(at + 508, "tar", 4);
    for (word n = some(6) ? 0 : some(12); n; n--)
        at[some(BLOCK)] = some(256);
    memset(at + 148, ' ', 8);
    for (word n = 0; n < BLOCK; n++)
        sum += at[n];
    sprintf((char *)at + 148, "%06lo", sum & 0777777);
    at[154] = 0, at[155] = ' ';
    if (!some(30))
        at[148 + some(8)] = some(256);
    return (size + BLOCK - 1) / BLOCK;
}

int main(int count, char **words)
{
    word rounds = count > 1 ? strtoul(words[1], 0, 10) : 1000, total = 0;
    state = (count > 2 ? strtoul(words[2], 0, 10) : 1) * 0x9e3779b97f4a7c15 + 1;
    while (rounds--) {
        static byte made_up[64 * BLOCK];
        word size = 0, room = 1 + some(40);
        while (size < 40 * BLOCK && some(12))
            size += (1 + header(made_up + size)) * BLOCK;
        if (size && !some(3))
            size -= some(size);
        byte *piece = malloc(size);
        memcpy(piece, made_up, size);
        struct run *my = malloc(sizeof *my);
        memset(my, some(256), sizeof *my);
        memset(my->fds, 255, sizeof my->fds);
        my->at = piece, my->end = piece + size, my->room = room, my->most = some(room + 1);
        my->waits = !some(10), my->keeps_owners = some(2), my->uid = some(2), my->gid = 0, my->flags = 0;
        my->kinds = malloc(room), my->numbers = malloc(room * NUMBERS * sizeof(long));
        my->names = malloc(room * (NAME_BYTES + 1)), my->links = malloc(room * (LINK_BYTES + 1));
        my->count = my->names_size = my->links_size = my->size_bytes = 0;
        for (word turn = 0; turn < 60; turn++) {
            const byte *before = my->at;
            word why = members(my);
            CHECK(why <= WAIT && !opened && my->at >= before && my->at <= my->end && my->count <= my->most);
            CHECK((my->at - piece) % BLOCK == 0);
            if (why == WAIT)
                my->waits = 0;
            if (why == OTHERS)
                break;
            if (why == DIRECTORY) {
                CHECK(my->slot < PLACES && my->fds[my->slot] == -1 && my->places[my->slot].size <= NAME_BYTES);
                if (!some(20))
                    break;
                my->fds[my->slot] = 50;
            }
        }
        word names = 0, links = 0, symlinks = 0, bytes = 0;
        for (word n = 0; n < my->names_size; n++)
            names += !my->names[n];
        for (word n = 0; n < my->links_size; n++)
            links += !my->links[n];
        for (word n = 0; n < my->count; n++) {
            symlinks += my->kinds[n] == '2';
            bytes += my->numbers[SIZE * room + n];
            CHECK(my->numbers[MODE * room + n] <= 07777);
        }
        CHECK(names == my->count && links == symlinks && bytes == my->size_bytes && bytes <= size);
        total += my->count;
        free(piece), free(my->kinds), free(my->numbers), free(my->names), free(my->links), free(my);
    }
    printf("%lu members made\n", total);
    return 0;
}
