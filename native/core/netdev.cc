#include "core/netdev.h"

// The kernel's names rather than <net/if.h>: both define struct ifreq, and tap.cc needs this one too.
#include <linux/if.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "core/unique_fd.h"

namespace vhost_net {
namespace {

enum class Field { kTxQueueLen, kMtu, kFlags, kIndex };

struct Request {
  unsigned long what;
  Field field;
  bool set;
};

constexpr Request kRequests[] = {
    {SIOCSIFTXQLEN, Field::kTxQueueLen, true}, {SIOCGIFTXQLEN, Field::kTxQueueLen, false},
    {SIOCSIFMTU, Field::kMtu, true},           {SIOCGIFMTU, Field::kMtu, false},
    {SIOCSIFFLAGS, Field::kFlags, true},       {SIOCGIFFLAGS, Field::kFlags, false},
    {SIOCGIFINDEX, Field::kIndex, false},
};

int* IntField(ifreq* request, Field field) {
  if (field == Field::kMtu) return &request->ifr_mtu;
  // ifr_qlen and ifr_ifindex are the same member.
  return &request->ifr_qlen;
}

}  // namespace

Result NetdevRequest(const char* name, unsigned long what, int value) {
  const Request* known = nullptr;
  for (const Request& request : kRequests) {
    if (request.what == what) known = &request;
  }
  const size_t length = strlen(name);
  if (known == nullptr || length == 0 || length >= IFNAMSIZ) return -EINVAL;
  UniqueFd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) return -errno;
  ifreq request = {};
  memcpy(request.ifr_name, name, length);
  if (known->set) {
    if (known->field == Field::kFlags) {
      request.ifr_flags = static_cast<short>(value);
    } else {
      *IntField(&request, known->field) = value;
    }
  }
  if (ioctl(socket_fd.get(), what, &request) < 0) return -errno;
  if (known->set) return 0;
  if (known->field == Field::kFlags) return static_cast<unsigned short>(request.ifr_flags);
  return *IntField(&request, known->field);
}

Result BringUp(const char* name) {
  const Result flags = NetdevRequest(name, SIOCGIFFLAGS, 0);
  if (flags < 0 || (flags & IFF_UP) != 0) return flags < 0 ? flags : 0;
  return NetdevRequest(name, SIOCSIFFLAGS, static_cast<int>(flags | IFF_UP));
}

}  // namespace vhost_net
