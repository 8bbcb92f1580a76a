-- Two models from what sql/velib/bikes_per_postcode.sql has written.
--
--   Parquet folder out/velib/bikes_per_postcode ─ each window beside the one an hour later ─ bikes_next: a regression
--   stations CSV ────────────────────────────────────────────────────────────────────────────── station_clusters: k-means
--
-- velosql run sql/velib/models.sql        trains both and publishes a version of each in models/.
-- velosql models list                     shows them;  velosql serve  answers predictions.

SET 'velosql.table.stations.csv-header' = 'true';

CREATE TABLE bikes (
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  postcode STRING,
  records BIGINT,
  stations BIGINT,
  bikes BIGINT,
  docks BIGINT
) WITH (
  'connector' = 'filesystem',
  'path' = 'out/velib/bikes_per_postcode',
  'format' = 'parquet',
  'parquet.utc-timezone' = 'true'
);

CREATE TABLE stations (
  stationCode STRING,
  station_id STRING,
  name STRING,
  lat STRING,
  lon STRING,
  capacity STRING,
  postcode STRING,
  nom_arrondissement_communes STRING,
  code_insee_commune STRING
) WITH (
  'connector' = 'filesystem',
  'path' = 'data/velib/stations_information.csv',
  'format' = 'csv'
);

-- A station is asked several times in a window: what counts is the mean of its answers.
CREATE VIEW filled AS
SELECT window_start, window_start + INTERVAL '1' HOUR AS hour_later, postcode, stations,
  CAST(bikes AS DOUBLE) * stations / records AS bikes,
  CAST(docks AS DOUBLE) * stations / records AS docks
FROM bikes;

-- How many bikes will a postcode have an hour later? Measured on the newest windows.
CREATE MODEL bikes_next WITH (
  'task' = 'regression',
  'algorithm' = 'gbdt',
  'label' = 'bikes_next',
  'features.window_start.parts' = 'hour',
  'holdout.by' = 'time',
  'holdout.column' = 'window_start',
  'min_leaf_rows' = '5'
) AS
SELECT now.window_start, now.postcode, now.stations, now.bikes, now.docks, soon.bikes AS bikes_next
FROM filled AS now
JOIN filled AS soon ON soon.postcode = now.postcode AND soon.window_start = now.hour_later;

-- Which stations are alike by place and size?
CREATE MODEL station_clusters WITH (
  'task' = 'clustering',
  'algorithm' = 'kmeans',
  'clusters' = '8'
) AS
SELECT TRY_CAST(lat AS DOUBLE) AS lat, TRY_CAST(lon AS DOUBLE) AS lon, TRY_CAST(capacity AS DOUBLE) AS capacity
FROM stations
WHERE TRY_CAST(lat AS DOUBLE) IS NOT NULL AND TRY_CAST(lon AS DOUBLE) IS NOT NULL AND TRY_CAST(capacity AS DOUBLE) IS NOT NULL;
