# Runs the tests in a privileged container against the host's /dev/vhost-net:
#
#   docker build -t vhost-net .
#   docker run --rm --privileged --device /dev/vhost-net --device /dev/net/tun vhost-net
#
# BASE is any Debian 12 image; Node comes from NODE_IMAGE-like bases or is already in BASE.
ARG BASE=node:20-bookworm
FROM ${BASE}

RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates cmake g++ iproute2 make procps python3 \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /vhost-net
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund

COPY . .
RUN scripts/dev build

CMD ["npm", "test"]
