-- Benchmark: a tumbling count per key, with as many groups in a window as the topic has keys.
--
--   velosql generate events --topic bench-events --records 5000000 --keys 300000
--   velosql bench sql/bench/count_per_key.sql

CREATE TABLE bids (
  auction BIGINT,
  price BIGINT,
  `dateTime` TIMESTAMP(3),
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = 'bench-events',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'bench',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json'
);

CREATE TABLE counts (
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  auction BIGINT,
  bids BIGINT
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO counts
SELECT window_start, window_end, auction, COUNT(*)
FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(`dateTime`), INTERVAL '10' MINUTE))
GROUP BY window_start, window_end, auction;
