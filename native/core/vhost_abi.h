#ifndef VHOST_NET_CORE_VHOST_ABI_H_
#define VHOST_NET_CORE_VHOST_ABI_H_

// Without it the header brings functions that are C and not C++.
#define VIRTIO_RING_NO_LEGACY
#include <linux/vhost.h>

#include <cstddef>
#include <cstdint>

/// The kernel's interface of /dev/vhost-net: include/uapi/linux/vhost.h and vhost_types.h. What the headers of
/// Linux 6.1 lack is written out here, with names of our own where a newer header has them.

namespace vhost_net {

struct VhostWorkerState {
  uint32_t worker_id;
};
struct VhostVringWorker {
  uint32_t index;
  uint32_t worker_id;
};
/// struct vhost_features_array with room for exactly the two words that exist.
struct VhostFeaturesArray {
  uint64_t count;
  uint64_t features[2];
};

constexpr unsigned long kVhostNewWorker = _IOR(VHOST_VIRTIO, 0x08, VhostWorkerState);
constexpr unsigned long kVhostFreeWorker = _IOW(VHOST_VIRTIO, 0x09, VhostWorkerState);
constexpr unsigned long kVhostAttachVringWorker = _IOW(VHOST_VIRTIO, 0x15, VhostVringWorker);
constexpr unsigned long kVhostGetVringWorker = _IOWR(VHOST_VIRTIO, 0x16, VhostVringWorker);
// The argument's encoded size is that of its first member.
constexpr unsigned long kVhostGetFeaturesArray = _IOR(VHOST_VIRTIO, 0x83, uint64_t);
constexpr unsigned long kVhostSetFeaturesArray = _IOW(VHOST_VIRTIO, 0x83, uint64_t);
// Some exported headers carry the pair 0x83 / 0x84 of a release candidate; kernels that were released have this one.
constexpr unsigned long kVhostSetForkFromOwner = _IOW(VHOST_VIRTIO, 0x84, uint8_t);
constexpr unsigned long kVhostGetForkFromOwner = _IOR(VHOST_VIRTIO, 0x85, uint8_t);

static_assert(VHOST_GET_FEATURES == 0x8008AF00 && VHOST_SET_FEATURES == 0x4008AF00);
static_assert(VHOST_SET_OWNER == 0x0000AF01 && VHOST_RESET_OWNER == 0x0000AF02);
static_assert(VHOST_SET_MEM_TABLE == 0x4008AF03 && VHOST_SET_LOG_BASE == 0x4008AF04 && VHOST_SET_LOG_FD == 0x4004AF07);
static_assert(kVhostNewWorker == 0x8004AF08 && kVhostFreeWorker == 0x4004AF09);
static_assert(VHOST_SET_VRING_NUM == 0x4008AF10 && VHOST_SET_VRING_ADDR == 0x4028AF11);
static_assert(VHOST_SET_VRING_BASE == 0x4008AF12 && VHOST_GET_VRING_BASE == 0xC008AF12);
static_assert(VHOST_SET_VRING_ENDIAN == 0x4008AF13 && VHOST_GET_VRING_ENDIAN == 0x4008AF14);
static_assert(kVhostAttachVringWorker == 0x4008AF15 && kVhostGetVringWorker == 0xC008AF16);
static_assert(VHOST_SET_VRING_KICK == 0x4008AF20 && VHOST_SET_VRING_CALL == 0x4008AF21);
static_assert(VHOST_SET_VRING_ERR == 0x4008AF22);
static_assert(VHOST_SET_VRING_BUSYLOOP_TIMEOUT == 0x4008AF23 && VHOST_GET_VRING_BUSYLOOP_TIMEOUT == 0x4008AF24);
static_assert(VHOST_SET_BACKEND_FEATURES == 0x4008AF25 && VHOST_GET_BACKEND_FEATURES == 0x8008AF26);
static_assert(VHOST_NET_SET_BACKEND == 0x4008AF30);
static_assert(kVhostGetFeaturesArray == 0x8008AF83 && kVhostSetFeaturesArray == 0x4008AF83);
static_assert(kVhostSetForkFromOwner == 0x4001AF84 && kVhostGetForkFromOwner == 0x8001AF85);

static_assert(sizeof(vhost_vring_state) == 8 && offsetof(vhost_vring_state, num) == 4);
static_assert(sizeof(vhost_vring_file) == 8 && offsetof(vhost_vring_file, fd) == 4);
static_assert(sizeof(vhost_vring_addr) == 40 && offsetof(vhost_vring_addr, flags) == 4);
static_assert(offsetof(vhost_vring_addr, desc_user_addr) == 8 && offsetof(vhost_vring_addr, used_user_addr) == 16);
static_assert(offsetof(vhost_vring_addr, avail_user_addr) == 24 && offsetof(vhost_vring_addr, log_guest_addr) == 32);
static_assert(sizeof(vhost_memory) == 8 && offsetof(vhost_memory, padding) == 4 &&
              offsetof(vhost_memory, regions) == 8);
static_assert(sizeof(vhost_memory_region) == 32 && offsetof(vhost_memory_region, guest_phys_addr) == 0);
static_assert(offsetof(vhost_memory_region, memory_size) == 8 && offsetof(vhost_memory_region, userspace_addr) == 16);
static_assert(offsetof(vhost_memory_region, flags_padding) == 24);
static_assert(sizeof(VhostFeaturesArray) == 24 && offsetof(VhostFeaturesArray, features) == 8);
static_assert(sizeof(VhostWorkerState) == 4 && sizeof(VhostVringWorker) == 8 &&
              offsetof(VhostVringWorker, worker_id) == 4);

}  // namespace vhost_net

#endif
