/* Opens many event streams and listens: how many events, how late, which were missing, which came twice.
 *
 *     load PORT COUNT PATH...      a reader takes the paths in turn
 *     load -z PORT COUNT PATH...   the same, with gzip: each reader inflates its own stream
 *
 * An event's data carries "@<number>@<nanoseconds>;": its running number, and the monotonic clock when it was made.
 * Says "connected" in JSON when every stream has an answer, then takes commands, one a line: "reset" (forget what was
 * counted), "report" (say it in JSON), "acks" (from now on, "ack NUMBER" when the last reader has an event).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define BUFFER (1 << 18)
#define RING (1 << 16) /* events that may be on their way at once */
#define BUCKETS 2400   /* of 1 % each, from a microsecond on */
#define CONNECTING 64  /* streams that may be waiting for their answer at once */

enum part { HEAD, SIZE, DATA, AFTER }; /* of a chunked body, RFC 9112, section 7.1 */

struct reader {
    int fd;
    uint8_t answered, phase, part, ends;
    uint32_t left;
    uint64_t number, made, last;
    z_stream *inflater;
};

static struct reader *readers;
static int count, port, paths, opened, answered, lost, acks, epoll_fd, gzip;
static char **path;
static char buffer[BUFFER];
static uint64_t events, gaps, repeats, bytes, complete, histogram[BUCKETS];
static double latest_max, *latest;
static size_t latest_room;
static struct { uint64_t number; uint32_t seen; } ring[RING];

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void open_next(void) {
    struct reader *r = &readers[opened];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;
    char ask[1024];
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (unsigned)opened % 4); /* a port range of its own each */
    r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->fd < 0) fail("socket");
    setsockopt(r->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(r->fd, (struct sockaddr *)&from, sizeof from) < 0) fail("bind");
    if (connect(r->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    int length = snprintf(ask, sizeof ask,
                          "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nAccept: text/event-stream\r\n%s\r\n",
                          path[opened % paths], port, gzip ? "Accept-Encoding: gzip\r\n" : "");
    if (gzip) {
        r->inflater = calloc(1, sizeof *r->inflater);
        if (inflateInit2(r->inflater, 31) != Z_OK) fail("inflateInit2");
    }
    if (write(r->fd, ask, (size_t)length) != length) fail("write");
    fcntl(r->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = r};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, r->fd, &e);
    opened++;
}

static void forget(void) {
    events = gaps = repeats = bytes = complete = 0;
    latest_max = 0;
    memset(histogram, 0, sizeof histogram);
}

static void take(struct reader *r, uint64_t at) {
    double late = at > r->made ? (double)(at - r->made) / 1000.0 : 0.0; /* microseconds */
    int bucket = late < 1 ? 0 : (int)(log(late) / log(1.01));
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    events++;
    if (r->last) {
        if (r->number > r->last + 1) gaps += r->number - r->last - 1;
        if (r->number <= r->last) repeats++;
    }
    if (r->number > r->last) r->last = r->number;
    if (ring[r->number % RING].number != r->number) {
        ring[r->number % RING].number = r->number;
        ring[r->number % RING].seen = 0;
    }
    if (++ring[r->number % RING].seen != (uint32_t)count) return;
    if (complete >= latest_room) {
        latest_room = latest_room ? 2 * latest_room : 1024;
        latest = realloc(latest, latest_room * sizeof *latest);
    }
    latest[complete++] = late;
    if (late > latest_max) latest_max = late;
    if (acks) {
        printf("ack %llu\n", (unsigned long long)r->number);
        fflush(stdout);
    }
}

static void scan(struct reader *r, const char *at, const char *end, uint64_t when) {
    while (at < end) {
        if (r->phase == 0) {
            at = memchr(at, '@', (size_t)(end - at));
            if (!at) return;
            r->phase = 1;
            r->number = r->made = 0;
            at++;
            continue;
        }
        char c = *at++;
        if (c >= '0' && c <= '9') {
            if (r->phase == 1) r->number = r->number * 10 + (uint64_t)(c - '0');
            else r->made = r->made * 10 + (uint64_t)(c - '0');
        } else if (c == '@' && r->phase == 1) {
            r->phase = 2;
        } else {
            if (c == ';' && r->phase == 2) take(r, when);
            r->phase = 0;
        }
    }
}

static void inflated(struct reader *r, const char *at, uint32_t length, uint64_t when) {
    static char plain[BUFFER];
    z_stream *z = r->inflater;
    z->next_in = (Bytef *)at;
    z->avail_in = length;
    do {
        z->next_out = (Bytef *)plain;
        z->avail_out = BUFFER;
        int done = inflate(z, Z_SYNC_FLUSH);
        if (done < 0 && done != Z_BUF_ERROR) {
            fprintf(stderr, "inflate: %s\n", z->msg ? z->msg : "?");
            exit(1);
        }
        scan(r, plain, plain + (BUFFER - z->avail_out), when);
    } while (z->avail_out == 0);
}

static void unchunked(struct reader *r, const char *at, const char *end, uint64_t when) {
    while (at < end) {
        if (r->part == DATA) {
            uint32_t here = (uint32_t)(end - at) < r->left ? (uint32_t)(end - at) : r->left;
            inflated(r, at, here, when);
            at += here;
            if (!(r->left -= here)) r->part = AFTER;
            continue;
        }
        char c = *at++;
        if (r->part == HEAD) { /* ends with the second of two empty line ends */
            r->ends = c == '\n' ? r->ends + 1 : c == '\r' ? r->ends : 0;
            if (r->ends == 2) r->part = SIZE;
        } else if (r->part == AFTER) {
            if (c == '\n') r->part = SIZE;
        } else if (c == '\n') {
            r->part = r->left ? DATA : AFTER;
        } else if (c != '\r') {
            r->left = r->left * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        }
    }
}

static void receive(struct reader *r) {
    for (;;) {
        ssize_t got = recv(r->fd, buffer, BUFFER, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got <= 0) {
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, r->fd, NULL);
            close(r->fd);
            lost++;
            if (!r->answered) answered++;
            return;
        }
        if (!r->answered) {
            r->answered = 1;
            answered++;
            if (memcmp(buffer, "HTTP/1.1 200", 12)) {
                fprintf(stderr, "%.*s\n", (int)(got > 300 ? 300 : got), buffer);
                exit(1);
            }
        }
        bytes += (uint64_t)got;
        if (gzip) unchunked(r, buffer, buffer + got, now());
        else scan(r, buffer, buffer + got, now());
        if (got < BUFFER) return;
    }
}

static double percentile(double share) {
    uint64_t wanted = (uint64_t)(share * (double)events), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) > wanted) return pow(1.01, i + 0.5);
    return 0;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(void) {
    if (complete) qsort(latest, complete, sizeof *latest, ascending);
    printf("{\"events\": %llu, \"gaps\": %llu, \"repeats\": %llu, \"bytes\": %llu, \"lost\": %d, \"complete\": %llu, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"last_ms\": %.3f, \"last_max_ms\": %.3f}\n",
           (unsigned long long)events, (unsigned long long)gaps, (unsigned long long)repeats,
           (unsigned long long)bytes, lost, (unsigned long long)complete, percentile(0.5) / 1000,
           percentile(0.99) / 1000, complete ? latest[complete / 2] / 1000 : 0, latest_max / 1000);
    fflush(stdout);
}

static void obey(void) {
    static char line[256];
    if (!fgets(line, sizeof line, stdin)) exit(0);
    if (!strncmp(line, "reset", 5)) forget();
    if (!strncmp(line, "report", 6)) report();
    if (!strncmp(line, "acks", 4)) acks = 1;
    if (!strncmp(line, "quiet", 5)) acks = 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "-z")) {
        gzip = 1;
        argc--, argv++;
    }
    if (argc < 4) {
        fprintf(stderr, "load [-z] PORT COUNT PATH...\n");
        return 2;
    }
    port = atoi(argv[1]);
    count = atoi(argv[2]);
    path = argv + 3;
    paths = argc - 3;
    readers = calloc((size_t)count, sizeof *readers);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    setvbuf(stdin, NULL, _IONBF, 0);
    struct epoll_event command = {.events = EPOLLIN, .data.ptr = NULL}, ready[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &command);
    uint64_t started = now();
    int said = 0;
    for (;;) {
        while (opened < count && opened - answered < CONNECTING) open_next();
        int n = epoll_wait(epoll_fd, ready, 512, -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr) receive(ready[i].data.ptr);
            else obey();
        }
        if (!said && answered == count) {
            said = 1;
            printf("{\"connected\": %d, \"seconds\": %.3f}\n", count - lost, (double)(now() - started) / 1e9);
            fflush(stdout);
        }
    }
}
