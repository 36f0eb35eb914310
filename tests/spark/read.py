"""Reads logs' tables with Spark, all in one session on the loopback interface.

    read.py JARS EXPRESSION NAME=TABLE...

prints a line for each table: its name; the number of records, the first id and the last; how many of them
were received in this month, in a month in which there were none, since 2020, and happened before noon of the
day that samples are of. If the table cannot be read, the line has the name, `error`, and the error's class.
The last line is what EXPRESSION, Python with `spark` in it, gives.
"""

import os
import re
import sys
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

QUERY = """
SELECT count(*), min(id), max(id),
       (SELECT count(*) FROM records WHERE month = date_format(current_timestamp(), 'yyyy-MM')),
       (SELECT count(*) FROM records WHERE month = '2020-01'),
       (SELECT count(*) FROM records WHERE received_at >= TIMESTAMP '2020-01-01 00:00:00'),
       (SELECT count(*) FROM records WHERE occurred_at < TIMESTAMP_NTZ '2026-01-05 12:00:00'),
       -- Every column is decoded, not just the ones that are counted.
       max(hash(*))
FROM records
"""


def session(jars: str) -> SparkSession:
    settings = {
        "spark.jars": ",".join(map(str, Path(jars).glob("*.jar"))),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.shuffle.partitions": "1",
        # The tables are small, and each query is asked once: compiling would take longer than reading.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # A store in a bucket: as its addresses begin with s3://, and where and as whom the environment says.
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.endpoint": os.environ.get("AWS_ENDPOINT_URL", ""),
        "spark.hadoop.fs.s3a.endpoint.region": os.environ.get("AWS_REGION", ""),
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }
    builder = SparkSession.builder.master("local[2]").appName("sporlog")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def facts(spark: SparkSession, table: str) -> list:
    try:
        spark.read.format("delta").load(table).createOrReplaceTempView("records")
        return spark.sql(QUERY).collect()[0][:7]
    except (PySparkException, Py4JJavaError) as error:
        found = re.search(r"\[([A-Z_.]+)\]", str(error))
        return ["error", found.group(1) if found else str(error).splitlines()[0]]


def main() -> None:
    jars, expression, *tables = sys.argv[1:]
    spark = session(jars)
    for name, table in (argument.split("=", 1) for argument in tables):
        print(name, *facts(spark, table), flush=True)
    print(eval(expression, {"spark": spark}))
    spark.stop()


if __name__ == "__main__":
    main()
