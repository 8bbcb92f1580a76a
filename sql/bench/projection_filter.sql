-- Benchmark: projection and filter. What it costs to read a topic, with next to nothing done to the rows.
--
--   velosql generate events --topic bench-events --records 5000000
--   velosql bench sql/bench/projection_filter.sql

CREATE TABLE bids (
  auction BIGINT,
  bidder BIGINT,
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

CREATE TABLE prices (
  auction BIGINT,
  bidder BIGINT,
  price DECIMAL(23, 3),
  `dateTime` TIMESTAMP(3)
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO prices
SELECT auction, bidder, 0.908 * price, `dateTime`
FROM bids
WHERE MOD(auction, 10) < 5;
