# The tests, in a privileged container against the host's /dev/vhost-net:
#
#   docker build -t vhost-net .
#   docker run --rm --privileged --device /dev/vhost-net --device /dev/net/tun vhost-net
#
# BASE is any Debian 12 image with Node 20 or newer. `scripts/container` does both steps with podman, and makes a base where
# none can be pulled. Nothing is downloaded when the container runs.
ARG BASE=node:20-bookworm
FROM ${BASE}

RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates cmake g++ iproute2 kmod make openssl procps python3 \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /vhost-net
COPY package.json package-lock.json ./
COPY scripts/dev scripts/
RUN scripts/dev setup

COPY . .
RUN scripts/dev build

# `lint` and `native` need no device, `vm` is the command that replaces the device where there is none.
CMD ["npm", "test", "--", "unit", "vhost"]
