/*
 * Two processes and a UNIX socket: one writes so many bytes of random memory, the other reads them into a buffer, or with `fresh` into
 * memory that it has never touched. Prints bytes a second. No checks, no addresses: what a socket carries at most.
 *
 *     page_pair BYTES buffer|fresh
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 * 1024 };

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint8_t *memory(size_t bytes) {
  int fd = memfd_create("pair", 0);
  if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) exit(2);
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) exit(2);
  return at;
}

static int receive(int socket, size_t bytes, int fresh) {
  uint8_t *target = fresh ? memory(bytes) : malloc(CHUNK);
  for (size_t done = 0; done < bytes;) {
    uint8_t *at = fresh ? target + done : target;
    ssize_t got = read(socket, at, bytes - done < CHUNK ? bytes - done : CHUNK);
    if (got <= 0) return 1;
    done += (size_t)got;
  }
  return write(socket, "", 1) == 1 ? 0 : 1;
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  const size_t bytes = strtoull(arguments[1], NULL, 10);
  const int fresh = strcmp(arguments[2], "fresh") == 0;
  uint8_t *source = memory(bytes);
  uint64_t state = 1;
  for (size_t at = 0; at + 8 <= bytes; at += 8) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    memcpy(source + at, &state, 8);
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 2;
  const pid_t child = fork();
  if (child == 0) _exit(receive(ends[1], bytes, fresh));
  close(ends[1]);
  const double began = now();
  for (size_t done = 0; done < bytes;) {
    ssize_t put = write(ends[0], source + done, bytes - done < CHUNK ? bytes - done : CHUNK);
    if (put <= 0) return 1;
    done += (size_t)put;
  }
  char byte;
  if (read(ends[0], &byte, 1) != 1) return 1;
  const double took = now() - began;
  int status;
  waitpid(child, &status, 0);
  printf("%.0f\n", (double)bytes / took);
  return status == 0 ? 0 : 1;
}
