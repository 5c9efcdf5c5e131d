/* The second build's clock: a library, loaded into every program by LD_PRELOAD, whose time is AHEAD seconds
 * later than the kernel's. It needs no libc to be made, so that one file serves the libc of every image.
 *
 * Only the time of day is moved: no file shows the clocks that count from a machine's start. The times of
 * files stay the kernel's, or those that a build has set would be moved as well. A program's wait until a time
 * of day that it has computed itself ends later than it meant; none of Xen's build is known to do that.
 *
 * Not libfaketime, which asks getenv for its settings: bash has a getenv of its own that answers later, so that
 * a shell had the true time for its first ten seconds.
 */
#include <sys/syscall.h>
#include <time.h>

extern int *__errno_location(void);

static long kernel(long number, long one, void *two)
{
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(one), "S"(two)
                     : "rcx", "r11", "memory");
    if (result < 0) {
        *__errno_location() = (int)-result;
        return -1;
    }
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)kernel(SYS_clock_gettime, clock, now);

    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
        now->tv_sec += AHEAD;
    return result;
}

/* Of two words, the first are the seconds. Its type has changed from one libc to the next. */
int gettimeofday(long now[2], void *zone)
{
    int result = (int)kernel(SYS_gettimeofday, (long)now, zone);

    if (result == 0)
        now[0] += AHEAD;
    return result;
}

time_t time(time_t *now)
{
    struct timespec found;

    clock_gettime(CLOCK_REALTIME_COARSE, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
