"""Asks an engine: `ask.py ENGINE FILE [PLACE]` reads {"setup": [statement, ...], "questions": [query, ...]} and writes
a list of the rows of each question into the file. MS(column) in a question is the time in milliseconds, whatever the engine
calls that. Tables of the engine itself are kept in the place."""

import json
import os
import sys


def duckdb():
    import duckdb
    connection = duckdb.connect()
    return "epoch_ms", lambda sql: connection.execute(sql).fetchall()


def clickhouse():
    from chdb import session
    connection = session.Session(*sys.argv[3:])

    def ask(sql):
        lines = str(connection.query(sql, "JSONCompactEachRow")).splitlines()
        return [json.loads(line) for line in lines if line]
    return "toUnixTimestamp64Milli", ask


def spark():
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    connection = builder.getOrCreate()
    connection.sparkContext.setLogLevel("OFF")
    return "unix_millis", lambda sql: [list(row) for row in connection.sql(sql).collect()]


millis, ask = {"duckdb": duckdb, "clickhouse": clickhouse, "spark": spark}[sys.argv[1]]()
script = json.load(sys.stdin)
for statement in script["setup"]:
    ask(statement)
answers = [ask(question.replace("MS(", millis + "(")) for question in script["questions"]]
# Java prints to the standard output, too.
with open(sys.argv[2], "w", encoding="utf-8") as out:
    json.dump(answers, out)
