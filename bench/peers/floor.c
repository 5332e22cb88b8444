// The kernel's own price: one thread, epoll, and for each message of one Redis channel a loop of send() over all sockets.
//   REDIS_PASSWORD=… floor PORT REDIS_PORT CHANNEL
// It speaks just enough: AUTH and SUBSCRIBE, the opening handshake of a client that sends the sample key of RFC 6455
// (section 1.3), unmasked text frames. What the sockets say is read and dropped.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 17, EVENTS = 512 };

static const char ACCEPTED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static char open_[MOST];     // whether the handshake of a socket is done, by its number
static int sockets[MOST], count;
static char replies[1 << 20];
static size_t held;

static void fail(const char *what) { perror(what); exit(1); }

static int address(int port, struct sockaddr_in *at) {
  *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return socket(AF_INET, SOCK_STREAM, 0);
}

static int listening(int port) {
  struct sockaddr_in at;
  int one = 1, fd = address(port, &at);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (void *)&at, sizeof at) < 0 || listen(fd, 2048) < 0) fail("listen");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static int subscribed(int port, const char *password, const char *channel) {
  struct sockaddr_in at;
  char hello[1024];
  int fd = address(port, &at);
  if (connect(fd, (void *)&at, sizeof at) < 0) fail("connect to Redis");
  int length = snprintf(hello, sizeof hello, "AUTH %s\r\nSUBSCRIBE %s\r\n", password, channel);
  if (write(fd, hello, length) != length) fail("write to Redis");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

// ---- one event to all
static void fan_out(const char *payload, size_t length) {
  unsigned char frame[4 + 65536];
  size_t head = 2;
  if (length > 65535) return;
  frame[0] = 0x81;
  if (length < 126) frame[1] = length;
  else { frame[1] = 126; frame[2] = length >> 8; frame[3] = length; head = 4; }
  memcpy(frame + head, payload, length);
  for (int i = 0; i < count; i++) send(sockets[i], frame, head + length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// ---- one pub/sub message: *3 $7 message $n channel $m payload; NULL while it is not all there
static char *bulk(char *at, char *end, char **value, size_t *length) {
  char *line = at < end ? memchr(at, '\n', end - at) : NULL;
  if (!line) return NULL;
  *length = strtoul(at + 1, NULL, 10);
  *value = line + 1;
  return *value + *length + 2 <= end ? *value + *length + 2 : NULL;
}

static void hear(int redis) {
  ssize_t got;
  while ((got = read(redis, replies + held, sizeof replies - held)) > 0) {
    held += got;
    char *at = replies, *end = replies + held;
    while (at < end) {
      char *line = memchr(at, '\n', end - at), *value, *after = at;
      size_t length;
      if (!line) break;
      if (*at == '*') {
        after = line + 1;
        for (int part = 0; part < 3 && after; part++) {
          if (after < end && *after == ':') {  // the count that ends a subscribe confirmation
            char *number = memchr(after, '\n', end - after);
            after = number ? number + 1 : NULL;
            length = 0;
          } else after = bulk(after, end, &value, &length);
        }
        if (!after) break;
        if (length) fan_out(value, length);
      } else after = line + 1;  // +OK
      at = after;
    }
    held = end - at;
    memmove(replies, at, held);
  }
  if (got == 0) exit(0);
}

// ---- sockets
static void leave(int fd) {
  for (int i = 0; i < count; i++)
    if (sockets[i] == fd) { sockets[i] = sockets[--count]; break; }
  open_[fd] = 0;
  close(fd);
}

static void serve(int fd) {
  char request[8192];
  ssize_t got = read(fd, request, sizeof request);
  if (got == 0 || (got < 0 && errno != EAGAIN)) { leave(fd); return; }
  if (got > 0 && !open_[fd] && memmem(request, got, "\r\n\r\n", 4)) {  // sent in one piece by our client
    open_[fd] = 1;
    send(fd, ACCEPTED, sizeof ACCEPTED - 1, MSG_NOSIGNAL);
    sockets[count++] = fd;
  }
}

int main(int arguments, char **argument) {
  if (arguments != 4) { fprintf(stderr, "REDIS_PASSWORD=… floor PORT REDIS_PORT CHANNEL\n"); return 2; }
  int door = listening(atoi(argument[1]));
  int redis = subscribed(atoi(argument[2]), getenv("REDIS_PASSWORD"), argument[3]);
  int poll = epoll_create1(0), one = 1;
  struct epoll_event event = {.events = EPOLLIN}, ready[EVENTS];
  event.data.fd = door; epoll_ctl(poll, EPOLL_CTL_ADD, door, &event);
  event.data.fd = redis; epoll_ctl(poll, EPOLL_CTL_ADD, redis, &event);
  for (;;) {
    int some = epoll_wait(poll, ready, EVENTS, -1);
    for (int i = 0; i < some; i++) {
      int fd = ready[i].data.fd, guest;
      if (fd == redis) hear(redis);
      else if (fd != door) serve(fd);
      else while ((guest = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (guest >= MOST) { close(guest); continue; }
        setsockopt(guest, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        event.data.fd = guest; epoll_ctl(poll, EPOLL_CTL_ADD, guest, &event);
      }
    }
  }
}
