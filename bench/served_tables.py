"""PostgreSQL's side of what the servers are asked for: the tables of `baseline/src/main.rs`."""

from psycopg import sql

NUMBERS = ("id", "personId", "performerId", "sourceId")


def audit(postgres, records, names):
    """Audit records, JSON lines, with these columns and a primary key. PostgreSQL reads the JSON by itself."""

    def listed(one):
        return sql.SQL(", ").join(map(one, names))

    def kind(name):
        return sql.SQL("bigint" if name in NUMBERS else "text")

    def given(name):
        # The log numbers records by itself; what they are numbered with in the file is their source's.
        of = {"id": ("l", "n"), "sourceId": ("r", "id")}
        return sql.Identifier(*of.get(name, ("r", name)))

    columns = listed(lambda name: sql.SQL("{} {}").format(sql.Identifier(name), kind(name)))
    postgres.execute(sql.SQL("CREATE TABLE served_audit ({})").format(columns))
    postgres.execute("CREATE UNLOGGED TABLE served_lines (n bigserial, line text)")
    # As CSV without anything that means something to it: a line is a line, backslashes and all.
    copy = "COPY served_lines (line) FROM {} WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"
    postgres.execute(sql.SQL(copy).format(sql.Literal(str(records))))
    insert = """INSERT INTO served_audit SELECT {} FROM served_lines l,
                json_populate_record(NULL::served_audit, line::json) r"""
    postgres.execute(sql.SQL(insert).format(listed(given)))
    postgres.execute("ALTER TABLE served_audit ADD PRIMARY KEY (id)")
    postgres.tidy("served_audit")


def disclosure(postgres):
    """Empty, with a primary key and an index on the person."""
    postgres.execute(
        """CREATE TABLE served_disclosure (
           id bigserial PRIMARY KEY, received timestamptz NOT NULL DEFAULT now(),
           person text NOT NULL, mottaker text NOT NULL, tema text NOT NULL, "behandlingsGrunnlag" text NOT NULL,
           "uthentingsTidspunkt" text NOT NULL, "leverteData" text NOT NULL,
           "samtykkeToken" text, "dataForespoersel" text, leverandoer text)"""
    )
    postgres.execute("CREATE INDEX ON served_disclosure (person)")


def access(postgres):
    """Empty: who has read which page, and when."""
    postgres.execute(
        """CREATE TABLE served_access (
           id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), reader text NOT NULL, after bigint NOT NULL)"""
    )
