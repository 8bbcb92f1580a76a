-- Bikes per postcode and quarter of an hour, from the live station records of a bike-share system.
--
--   Kafka topic velib ─┐
--                      ├─ join by time ─ 15-minute windows ─┬─ Parquet folder out/velib/bikes_per_postcode
--   stations CSV ──────┘                                    ├─ Kafka topic velib-bikes-per-postcode
--                                                           └─ printed rows
--
-- velosql run sql/velib/bikes_per_postcode.sql       runs it here, until Ctrl-C; it resumes where it stopped.
-- The same file runs on Apache Flink 2.3 with its Kafka connector and its Parquet format.
-- Elsewhere than localhost: --option '*.properties.bootstrap.servers=broker:9092'.

SET 'pipeline.name' = 'bikes_per_postcode';
SET 'table.local-time-zone' = 'UTC';
SET 'execution.checkpointing.interval' = '10 s';
-- To Flink the header is one more station, which no record joins with.
SET 'velosql.table.stations.csv-header' = 'true';

CREATE TABLE status (
  stationcode STRING,
  numbikesavailable INT,
  mechanical INT,
  ebike INT,
  numdocksavailable INT,
  duedate STRING,  -- the station's last report, in local time with its offset: 2024-11-09T10:05:00+01:00
  ts AS TO_TIMESTAMP(SUBSTRING(duedate, 1, 19), 'yyyy-MM-dd''T''HH:mm:ss'),
  WATERMARK FOR ts AS ts - INTERVAL '5' MINUTE
) WITH (
  'connector' = 'kafka',
  'topic' = 'velib',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'bikes_per_postcode',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'json'
);

-- Columns are read by position. All are STRING, so that a header can be read as a row too.
CREATE TABLE stations (
  stationCode STRING,
  station_id STRING,
  name STRING,
  lat STRING,
  lon STRING,
  capacity STRING,
  postcode STRING,
  nom_arrondissement_communes STRING,
  code_insee_commune STRING,
  -- One version of each station, valid since ever: that is how a stream is joined with a file by time.
  valid_from AS TIMESTAMP '1970-01-01 00:00:00.000',
  WATERMARK FOR valid_from AS valid_from,
  PRIMARY KEY (stationCode) NOT ENFORCED
) WITH (
  'connector' = 'filesystem',
  'path' = 'data/velib/stations_information.csv',
  'format' = 'csv'
);

CREATE TABLE bikes_parquet (
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  postcode STRING,
  records BIGINT,       -- station records in the window: a station is asked several times
  stations BIGINT,      -- stations that reported
  capacity BIGINT,      -- docks of these records' stations
  bikes BIGINT,
  mechanical BIGINT,
  ebike BIGINT,
  docks BIGINT
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/velib/bikes_per_postcode',
  'format' = 'parquet',
  'parquet.utc-timezone' = 'true'
);

CREATE TABLE bikes_topic (
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  postcode STRING,
  records BIGINT,
  stations BIGINT,
  capacity BIGINT,
  bikes BIGINT,
  mechanical BIGINT,
  ebike BIGINT,
  docks BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'velib-bikes-per-postcode',
  'properties.bootstrap.servers' = 'localhost:9092',
  'format' = 'json'
);

CREATE TABLE bikes_print (
  window_start TIMESTAMP(3),
  postcode STRING,
  stations BIGINT,
  bikes BIGINT,
  docks BIGINT
) WITH (
  'connector' = 'print'
);

CREATE VIEW reports AS
SELECT s.ts, s.stationcode, c.postcode, TRY_CAST(c.capacity AS INT) AS capacity,
  s.numbikesavailable, s.mechanical, s.ebike, s.numdocksavailable
FROM status AS s
JOIN stations FOR SYSTEM_TIME AS OF s.ts AS c ON s.stationcode = c.stationCode
WHERE c.postcode <> '';  -- some stations of the list have none

CREATE VIEW bikes AS
SELECT window_start, window_end, postcode,
  COUNT(*) AS records,
  COUNT(DISTINCT stationcode) AS stations,
  SUM(CAST(capacity AS BIGINT)) AS capacity,
  SUM(CAST(numbikesavailable AS BIGINT)) AS bikes,
  SUM(CAST(mechanical AS BIGINT)) AS mechanical,
  SUM(CAST(ebike AS BIGINT)) AS ebike,
  SUM(CAST(numdocksavailable AS BIGINT)) AS docks
FROM TABLE(TUMBLE(TABLE reports, DESCRIPTOR(ts), INTERVAL '15' MINUTE))
GROUP BY window_start, window_end, postcode;

EXECUTE STATEMENT SET
BEGIN
  INSERT INTO bikes_parquet SELECT * FROM bikes;
  INSERT INTO bikes_topic SELECT * FROM bikes;
  INSERT INTO bikes_print SELECT window_start, postcode, stations, bikes, docks FROM bikes;
END;
