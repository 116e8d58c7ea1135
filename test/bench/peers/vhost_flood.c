/*
 * The benchmarks' yardstick: a virtio-net driver reduced to what a flood needs, on /dev/vhost-net, in C.
 *
 *   vhost_flood tx|rx --tap NAME [--ring 256] [--batch 32] [--frame 64] [--buffer 2048] [--event-idx] [--napi]
 *               [--multi-queue]
 *
 * tx keeps the ring full of frames, rx keeps it full of buffers; neither ever waits for the call eventfd. Both print a line of JSON
 * five times a second: CLOCK_MONOTONIC in microseconds, frames so far, looks at the used ring so far and how many of them found
 * nothing, kicks so far. Ends at SIGTERM, or with its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define GPA_BASE 0x100000ull
#define PAGE 4096u
#define REPORT_MICROS 200000ull
#define LOOKS_PER_CLOCK 64u

struct options {
	bool transmit;
	const char *tap;
	unsigned ring, batch, frame, buffer;
	bool event_idx, napi, multi_queue;
};

struct queue {
	unsigned size, mask;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	_Atomic uint16_t *avail_idx, *used_idx, *used_flags, *avail_event;
	uint16_t next_avail, last_used;
	int kick;
	bool event_idx;
};

struct counters {
	uint64_t frames, looks, idle, kicks;
};

static volatile sig_atomic_t ended;

static void on_end(int signal_number)
{
	(void)signal_number;
	ended = 1;
}

static void must(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "vhost_flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void must_hold(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "vhost_flood: %s\n", what);
	exit(1);
}

static uint64_t now_micros(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000u + (uint64_t)at.tv_nsec / 1000u;
}

static unsigned number(const char *text, unsigned least, unsigned most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end != 0 || value < least || value > most) {
		fprintf(stderr, "vhost_flood: %s is not a number from %u to %u\n", text, least, most);
		exit(2);
	}
	return (unsigned)value;
}

static struct options parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "tap", required_argument, 0, 't' },	 { "ring", required_argument, 0, 'r' },
		{ "batch", required_argument, 0, 'b' },	 { "frame", required_argument, 0, 'f' },
		{ "buffer", required_argument, 0, 'u' }, { "event-idx", no_argument, 0, 'e' },
		{ "napi", no_argument, 0, 'n' },	 { "multi-queue", no_argument, 0, 'm' },
		{ 0, 0, 0, 0 },
	};
	struct options o = { .tap = NULL, .ring = 256, .batch = 32, .frame = 64, .buffer = 2048 };
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 't': o.tap = optarg; break;
		case 'r': o.ring = number(optarg, 2, 32768); break;
		case 'b': o.batch = number(optarg, 1, 32768); break;
		case 'f': o.frame = number(optarg, 60, 1514); break;
		case 'u': o.buffer = number(optarg, 128, 65536); break;
		case 'e': o.event_idx = true; break;
		case 'n': o.napi = true; break;
		case 'm': o.multi_queue = true; break;
		default: exit(2);
		}
	}
	bool known = optind + 1 == argc && (strcmp(argv[optind], "tx") == 0 || strcmp(argv[optind], "rx") == 0);
	if (!known || o.tap == NULL || (o.ring & (o.ring - 1)) != 0) {
		fprintf(stderr, "usage: vhost_flood tx|rx --tap NAME [--ring N] [--batch N] [--frame BYTES] [--buffer BYTES] "
				"[--event-idx] [--napi] [--multi-queue]\n");
		exit(2);
	}
	o.transmit = strcmp(argv[optind], "tx") == 0;
	return o;
}

static int open_tap(const struct options *o, int header)
{
	const int more = (o->napi ? IFF_NAPI : 0) | (o->multi_queue ? IFF_MULTI_QUEUE : 0);
	struct ifreq request = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | more) };
	int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	must(tap >= 0, "open /dev/net/tun");
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", o->tap);
	must(ioctl(tap, TUNSETIFF, &request) == 0, "TUNSETIFF");
	must(ioctl(tap, TUNSETVNETHDRSZ, &header) == 0, "TUNSETVNETHDRSZ");
	return tap;
}

static size_t up(size_t value, size_t to)
{
	return (value + to - 1) / to * to;
}

/* Lays one ring out at `at` (host address of guest address `gpa`) and answers the bytes it takes. */
static size_t lay_out(struct queue *q, uint8_t *at, unsigned size, bool event_idx)
{
	size_t avail = (size_t)size * sizeof(struct vring_desc);
	size_t used = up(avail + 4 + 2 * (size_t)size + 2, PAGE);

	q->size = size;
	q->mask = size - 1;
	q->event_idx = event_idx;
	q->desc = (struct vring_desc *)at;
	q->avail = (struct vring_avail *)(at + avail);
	q->used = (struct vring_used *)(at + used);
	q->avail_idx = (_Atomic uint16_t *)&q->avail->idx;
	q->used_idx = (_Atomic uint16_t *)&q->used->idx;
	q->used_flags = (_Atomic uint16_t *)&q->used->flags;
	q->avail_event = (_Atomic uint16_t *)&q->used->ring[size];
	return up(used + 4 + 8 * (size_t)size + 2, PAGE);
}

static void set_up_ring(int vhost, unsigned index, struct queue *q, int tap)
{
	struct vhost_vring_state num = { index, q->size }, base = { index, 0 };
	struct vhost_vring_addr addr = {
		.index = index,
		.desc_user_addr = (uintptr_t)q->desc,
		.used_user_addr = (uintptr_t)q->used,
		.avail_user_addr = (uintptr_t)q->avail,
	};
	struct vhost_vring_file file = { .index = index };

	must(ioctl(vhost, VHOST_SET_VRING_NUM, &num) == 0, "VHOST_SET_VRING_NUM");
	must(ioctl(vhost, VHOST_SET_VRING_BASE, &base) == 0, "VHOST_SET_VRING_BASE");
	must(ioctl(vhost, VHOST_SET_VRING_ADDR, &addr) == 0, "VHOST_SET_VRING_ADDR");
	file.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(file.fd >= 0, "eventfd");
	must(ioctl(vhost, VHOST_SET_VRING_CALL, &file) == 0, "VHOST_SET_VRING_CALL");
	file.fd = q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(file.fd >= 0, "eventfd");
	must(ioctl(vhost, VHOST_SET_VRING_KICK, &file) == 0, "VHOST_SET_VRING_KICK");
	file.fd = tap;
	must(ioctl(vhost, VHOST_NET_SET_BACKEND, &file) == 0, "VHOST_NET_SET_BACKEND");
}

static void post(struct queue *q, uint16_t id)
{
	q->avail->ring[q->next_avail & q->mask] = id;
	q->next_avail++;
}

/* Shows the device everything posted since `old` and tells whether it asked to be kicked for that. */
static bool publish(struct queue *q, uint16_t old)
{
	/* Sequentially consistent on both sides: the index must be out before the device's wish is read, or both could sleep. */
	atomic_store_explicit(q->avail_idx, q->next_avail, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	if (q->event_idx)
		return vring_need_event(atomic_load_explicit(q->avail_event, memory_order_relaxed), q->next_avail, old);
	return (atomic_load_explicit(q->used_flags, memory_order_relaxed) & VRING_USED_F_NO_NOTIFY) == 0;
}

static void kick(struct queue *q, struct counters *c)
{
	uint64_t one = 1;

	must(write(q->kick, &one, sizeof(one)) == sizeof(one), "write to the kick eventfd");
	c->kicks++;
}

static void report(uint64_t at, const struct counters *c)
{
	printf("{\"micros\":%llu,\"frames\":%llu,\"looks\":%llu,\"idle\":%llu,\"kicks\":%llu}\n", (unsigned long long)at,
	       (unsigned long long)c->frames, (unsigned long long)c->looks, (unsigned long long)c->idle,
	       (unsigned long long)c->kicks);
	must(fflush(stdout) == 0, "write to standard output");
}

/* UDP from 198.18.0.1 to 198.18.0.2, port 9 to 9, without a UDP checksum: what testpmd's txonly sends. */
static void write_frame(uint8_t *at, unsigned header, unsigned length)
{
	static const uint8_t template[42] = {
		0x02, 0, 0, 0, 0, 0x00, 0x02, 0, 0, 0, 0, 0x01, 0x08, 0x00,
		0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2,
		0, 9, 0, 9, 0, 0, 0, 0,
	};
	uint8_t *frame = at + header, *ip = frame + 14, *udp = ip + 20;
	uint32_t sum = 0;

	memset(at, 0, header + length);
	memcpy(frame, template, sizeof(template));
	ip[2] = (uint8_t)((length - 14) >> 8);
	ip[3] = (uint8_t)(length - 14);
	udp[4] = (uint8_t)((length - 34) >> 8);
	udp[5] = (uint8_t)(length - 34);
	for (unsigned i = 0; i < 20; i += 2)
		sum += (uint32_t)ip[i] << 8 | ip[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~(sum + (sum >> 16)) & 0xffff;
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}

/* Reaps at most a batch, posts the same descriptors again, publishes once. `buffers` is where the buffer of descriptor 0 lies. */
static void flood(struct queue *q, const struct options *o, const uint8_t *buffers)
{
	struct counters c = { 0, 0, 0, 0 };
	uint64_t report_at = 0;

	while (!ended) {
		if (c.looks % LOOKS_PER_CLOCK == 0) {
			uint64_t now = now_micros();
			if (now >= report_at) {
				report(now, &c);
				report_at = now + REPORT_MICROS;
			}
		}
		c.looks++;
		/* Acquire: elements and, on receive, frames written before this index are read after it. */
		uint16_t fresh = (uint16_t)(atomic_load_explicit(q->used_idx, memory_order_acquire) - q->last_used);
		if (fresh == 0) {
			c.idle++;
			__builtin_ia32_pause();
			continue;
		}
		if (fresh > o->batch)
			fresh = (uint16_t)o->batch;
		uint16_t old = q->next_avail;
		for (unsigned i = 0; i < fresh; i++) {
			const volatile struct vring_used_elem *element = &q->used->ring[(uint16_t)(q->last_used + i) & q->mask];
			uint32_t id = element->id;
			must_hold(id <= q->mask, "a used element names no descriptor");
			if (!o->transmit) {
				const struct virtio_net_hdr_mrg_rxbuf *header =
					(const void *)(buffers + (size_t)id * o->buffer);
				must_hold(header->num_buffers == 1 && element->len == o->frame + sizeof(*header),
					  "a received frame has another length");
			}
			post(q, (uint16_t)id);
		}
		q->last_used += fresh;
		c.frames += fresh;
		if (publish(q, old))
			kick(q, &c);
	}
	report(now_micros(), &c);
}

int main(int argc, char **argv)
{
	struct options o = parse(argc, argv);
	struct sigaction end = { .sa_handler = on_end };
	const unsigned header = sizeof(struct virtio_net_hdr_mrg_rxbuf);
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_NET_F_MRG_RXBUF;
	struct queue rings[2];

	if (o.event_idx)
		features |= 1ull << VIRTIO_RING_F_EVENT_IDX;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);

	size_t length = (size_t)o.ring * 64 * 1024 + 4u * 1024 * 1024;
	int memfd = memfd_create("vhost_flood", MFD_CLOEXEC);
	must(memfd >= 0 && ftruncate(memfd, (off_t)length) == 0, "memfd_create");
	uint8_t *ram = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	must(ram != MAP_FAILED, "mmap");

	size_t at = 0;
	for (unsigned i = 0; i < 2; i++) {
		memset(&rings[i], 0, sizeof(rings[i]));
		at += lay_out(&rings[i], ram + at, o.ring, o.event_idx);
	}
	uint8_t *buffers = ram + at;
	struct queue *q = &rings[o.transmit ? 1 : 0];
	for (unsigned i = 0; i < o.ring; i++) {
		uint8_t *buffer = buffers + (size_t)i * o.buffer;
		q->desc[i].addr = GPA_BASE + (uint64_t)(buffer - ram);
		q->desc[i].len = o.transmit ? header + o.frame : o.buffer;
		q->desc[i].flags = o.transmit ? 0 : VRING_DESC_F_WRITE;
		if (o.transmit)
			write_frame(buffer, header, o.frame);
		post(q, (uint16_t)i);
	}
	/* Nobody waits for calls. With EVENT_IDX, which ignores the flag, used_event stays 0: one call in 65,536 frames. */
	q->avail->flags = o.event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT;

	int tap = open_tap(&o, (int)header);
	int vhost = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
	must(vhost >= 0, "open /dev/vhost-net");
	struct {
		struct vhost_memory head;
		struct vhost_memory_region region;
	} table = { .head = { .nregions = 1 }, .region = { GPA_BASE, length, (uintptr_t)ram, 0 } };
	must(ioctl(vhost, VHOST_SET_OWNER) == 0, "VHOST_SET_OWNER");
	must(ioctl(vhost, VHOST_SET_FEATURES, &features) == 0, "VHOST_SET_FEATURES");
	must(ioctl(vhost, VHOST_SET_MEM_TABLE, &table) == 0, "VHOST_SET_MEM_TABLE");
	for (unsigned i = 0; i < 2; i++)
		set_up_ring(vhost, i, &rings[i], tap);

	struct counters none = { 0, 0, 0, 0 };
	publish(q, 0);
	kick(q, &none);
	flood(q, &o, buffers);
	return 0;
}
