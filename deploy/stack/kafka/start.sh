#!/bin/sh
# As apache/kafka's own entry: the KAFKA_* variables become a configuration, storage is formatted once, the broker runs.
set -eu
# Started again, it finds its storage formatted and says so with an error, which is none.
said=$(java -cp "/opt/kafka/libs/*" kafka.docker.KafkaDockerWrapper setup \
  --default-configs-dir /etc/kafka/docker --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1) ||
  case $said in
    *"already formatted"*) ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
# shellcheck disable=SC2086
exec java ${KAFKA_HEAP_OPTS:-} -cp "/opt/kafka/libs/*" kafka.Kafka /opt/kafka/config/server.properties
