/* The floor: an event stream server that does nothing but send. What it costs is the kernel's price.
 *
 *     floor PORT      each line of standard input goes to every reader, as one chunk and one send
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 20000

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static int reader[MOST], readers;
static char input[1 << 20];
static size_t filled;

static void leave(int fd) {
    for (int i = 0; i < readers; i++)
        if (reader[i] == fd) reader[i] = reader[--readers];
    close(fd);
}

static void publish(const char *line, size_t length) {
    static char chunk[1 << 16];
    static unsigned long number;
    char id[32];
    int id_length = snprintf(id, sizeof id, "id: %lu\ndata: ", ++number);
    int size = snprintf(chunk, sizeof chunk, "%zx\r\n%s%.*s\n\n\r\n", (size_t)id_length + length + 2, id, (int)length, line);
    for (int i = 0; i < readers; i++)
        if (send(reader[i], chunk, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT) != size) leave(reader[i--]);
}

static void read_input(void) {
    ssize_t got = read(0, input + filled, sizeof input - filled);
    if (got <= 0) exit(0);
    filled += (size_t)got;
    char *line = input, *end;
    while ((end = memchr(line, '\n', filled - (size_t)(line - input)))) {
        publish(line, (size_t)(end - line));
        line = end + 1;
    }
    filled -= (size_t)(line - input);
    memmove(input, line, filled);
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0))};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll_fd = epoll_create1(0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) {
        perror("floor");
        return 1;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, ready[512];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = 0;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &e);
    for (;;) {
        int n = epoll_wait(epoll_fd, ready, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == 0) {
                read_input();
            } else if (fd == listener) {
                int next = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (next < 0 || readers == MOST) continue;
                e.data.fd = next;
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, next, &e);
                reader[readers++] = next;
            } else {
                char asked[4096];
                ssize_t got = recv(fd, asked, sizeof asked, 0);
                if (got <= 0) leave(fd);
                else if (send(fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) leave(fd);
            }
        }
    }
}
