#include "core/vhost_net.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/vhost_abi.h"

namespace vhost_net {
namespace {

Result Call(int fd, unsigned long request, void* argument) { return FromCall(ioctl(fd, request, argument)); }

void AddOnce(std::vector<std::shared_ptr<Mapping>>* list, const std::shared_ptr<Mapping>& mapping) {
  if (mapping != nullptr && std::find(list->begin(), list->end(), mapping) == list->end()) list->push_back(mapping);
}

}  // namespace

Result OpenVhostNet(const char* path, UniqueFd* out) { return OpenFd(path, O_RDWR, out); }

void VhostNet::Close() {
  fd_.Reset();
  table_.clear();
  log_.clear();
  for (Mappings& ring : rings_) ring.clear();
}

Result VhostNet::SetOwner() { return Call(fd(), VHOST_SET_OWNER, nullptr); }

Result VhostNet::ResetOwner() {
  Mappings table, log, rings[kRings];
  std::lock_guard<std::mutex> lock(mutex_);
  const Result result = Call(fd(), VHOST_RESET_OWNER, nullptr);
  if (result < 0) return result;
  // Both rings are detached, table and log forgotten: nothing is looked at any more.
  table.swap(table_);
  log.swap(log_);
  for (uint32_t i = 0; i < kRings; i++) rings[i].swap(rings_[i]);
  return result;
}

Result VhostNet::GetFeatures(uint64_t* features) { return Call(fd(), VHOST_GET_FEATURES, features); }
Result VhostNet::SetFeatures(uint64_t features) { return Call(fd(), VHOST_SET_FEATURES, &features); }

Result VhostNet::GetFeaturesArray(uint64_t* words) {
  VhostFeaturesArray array = {2, {0, 0}};
  const Result result = Call(fd(), kVhostGetFeaturesArray, &array);
  memcpy(words, array.features, sizeof array.features);
  return result;
}

Result VhostNet::SetFeaturesArray(const uint64_t* words) {
  VhostFeaturesArray array = {2, {words[0], words[1]}};
  return Call(fd(), kVhostSetFeaturesArray, &array);
}

Result VhostNet::GetBackendFeatures(uint64_t* features) { return Call(fd(), VHOST_GET_BACKEND_FEATURES, features); }
Result VhostNet::SetBackendFeatures(uint64_t features) { return Call(fd(), VHOST_SET_BACKEND_FEATURES, &features); }

// Eight bytes for a request of one: a kernel that does not know it reads a ring index there.
Result VhostNet::SetForkFromOwner(uint8_t value) {
  uint8_t argument[8] = {value};
  return Call(fd(), kVhostSetForkFromOwner, argument);
}

Result VhostNet::GetForkFromOwner() {
  uint8_t argument[8] = {};
  const Result result = Call(fd(), kVhostGetForkFromOwner, argument);
  return result < 0 ? result : argument[0];
}

Result VhostNet::SetMemTable(const std::vector<MemoryRegion>& regions, Mappings mappings, uint32_t padding) {
  std::vector<uint64_t> argument(1 + regions.size() * 4);
  const uint32_t header[2] = {static_cast<uint32_t>(regions.size()), padding};
  memcpy(argument.data(), header, sizeof header);
  uint64_t* next = argument.data() + 1;
  for (const MemoryRegion& region : regions) {
    *next++ = region.guest_phys_addr;
    *next++ = region.memory_size;
    *next++ = region.userspace_addr;
    *next++ = 0;
  }
  // The lock spans ioctl and bookkeeping, so that of two concurrent tables the kernel's last is also the last here.
  // What is replaced leaves with `mappings`, which as a parameter lives longer than the lock: unmapping needs no lock.
  std::lock_guard<std::mutex> lock(mutex_);
  const Result result = Call(fd(), VHOST_SET_MEM_TABLE, argument.data());
  if (result >= 0) table_.swap(mappings);
  return result;
}

Result VhostNet::SetLogBase(uint64_t hva, std::shared_ptr<Mapping> mapping) {
  Mappings replaced;
  std::lock_guard<std::mutex> lock(mutex_);
  const Result result = Call(fd(), VHOST_SET_LOG_BASE, &hva);
  if (result < 0) {
    // The base is set ring by ring: after a failure one ring may write here and the other still to the log before.
    AddOnce(&log_, mapping);
    return result;
  }
  replaced.swap(log_);
  AddOnce(&log_, mapping);
  return result;
}

Result VhostNet::SetLogFd(int log_fd) { return Call(fd(), VHOST_SET_LOG_FD, &log_fd); }

Result VhostNet::SetState(unsigned long request, uint32_t index, uint32_t num) {
  vhost_vring_state state = {index, num};
  return Call(fd(), request, &state);
}

Result VhostNet::GetState(unsigned long request, uint32_t index) {
  vhost_vring_state state = {index, 0};
  const Result result = Call(fd(), request, &state);
  return result < 0 ? result : static_cast<Result>(state.num);
}

Result VhostNet::SetFile(unsigned long request, uint32_t index, int file) {
  vhost_vring_file argument = {index, file};
  return Call(fd(), request, &argument);
}

Result VhostNet::SetVringNum(uint32_t index, uint32_t num) { return SetState(VHOST_SET_VRING_NUM, index, num); }
Result VhostNet::SetVringBase(uint32_t index, uint32_t num) { return SetState(VHOST_SET_VRING_BASE, index, num); }
Result VhostNet::GetVringBase(uint32_t index) { return GetState(VHOST_GET_VRING_BASE, index); }

Result VhostNet::SetVringAddr(const VringAddr& addr) {
  vhost_vring_addr argument = {};
  argument.index = addr.index;
  argument.flags = addr.flags;
  argument.desc_user_addr = addr.desc_user_addr;
  argument.used_user_addr = addr.used_user_addr;
  argument.avail_user_addr = addr.avail_user_addr;
  argument.log_guest_addr = addr.log_guest_addr;
  Mappings held;
  std::lock_guard<std::mutex> lock(mutex_);
  const Result result = Call(fd(), VHOST_SET_VRING_ADDR, &argument);
  if (result < 0 || addr.index >= kRings) return result;
  // A later table may leave out the mapping that holds the ring; the ring goes on using it until its address is set
  // again.
  for (uint64_t address : {addr.desc_user_addr, addr.used_user_addr, addr.avail_user_addr}) {
    for (const Mappings* list : {&table_, &rings_[addr.index]}) {
      for (const auto& mapping : *list) {
        if (mapping->Contains(address)) AddOnce(&held, mapping);
      }
    }
  }
  rings_[addr.index].swap(held);
  return result;
}

Result VhostNet::SetVringKick(uint32_t index, int file) { return SetFile(VHOST_SET_VRING_KICK, index, file); }
Result VhostNet::SetVringCall(uint32_t index, int file) { return SetFile(VHOST_SET_VRING_CALL, index, file); }
Result VhostNet::SetVringErr(uint32_t index, int file) { return SetFile(VHOST_SET_VRING_ERR, index, file); }
Result VhostNet::SetVringEndian(uint32_t index, uint32_t num) { return SetState(VHOST_SET_VRING_ENDIAN, index, num); }
Result VhostNet::GetVringEndian(uint32_t index) { return GetState(VHOST_GET_VRING_ENDIAN, index); }

Result VhostNet::SetVringBusyloopTimeout(uint32_t index, uint32_t microseconds) {
  return SetState(VHOST_SET_VRING_BUSYLOOP_TIMEOUT, index, microseconds);
}

Result VhostNet::GetVringBusyloopTimeout(uint32_t index) { return GetState(VHOST_GET_VRING_BUSYLOOP_TIMEOUT, index); }
Result VhostNet::NetSetBackend(uint32_t index, int file) { return SetFile(VHOST_NET_SET_BACKEND, index, file); }

// Eight bytes again, and zeroed: vhost-net does not know these requests and reads a ring index.
Result VhostNet::NewWorker() {
  VhostWorkerState argument[2] = {};
  const Result result = Call(fd(), kVhostNewWorker, argument);
  return result < 0 ? result : static_cast<Result>(argument[0].worker_id);
}

Result VhostNet::FreeWorker(uint32_t worker_id) {
  VhostWorkerState argument[2] = {{worker_id}, {0}};
  return Call(fd(), kVhostFreeWorker, argument);
}

Result VhostNet::AttachVringWorker(uint32_t index, uint32_t worker_id) {
  VhostVringWorker argument = {index, worker_id};
  return Call(fd(), kVhostAttachVringWorker, &argument);
}

Result VhostNet::GetVringWorker(uint32_t index) {
  VhostVringWorker argument = {index, 0};
  const Result result = Call(fd(), kVhostGetVringWorker, &argument);
  return result < 0 ? result : static_cast<Result>(argument.worker_id);
}

Result VhostNet::Ioctl(unsigned long request, uint8_t* argument, size_t length) {
  if (argument == nullptr) return Call(fd(), request, nullptr);
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = (length / page + 1) * page;
  std::shared_ptr<Mapping> scratch;
  const Result created = Mapping::Create(-1, 0, whole, 0, 0x3 /* PROT_READ | PROT_WRITE */, &scratch);
  if (created < 0) return created;
  uint8_t* copy = scratch->data() + whole - length;
  memcpy(copy, argument, length);
  const Result result = Call(fd(), request, copy);
  memcpy(argument, copy, length);
  return result;
}

}  // namespace vhost_net
