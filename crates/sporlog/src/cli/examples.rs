//! The examples below the help texts.

pub const TOP: &str = "\
First steps:
  sporlog sample revision --records 10000 --out day.csv    something to work with
  sporlog check revision day.csv                           is it in order?
  sporlog import revision day.csv                          into ./sporlog-data
  sporlog read revision --limit 3                          read the first three
  sporlog verify revision                                  nothing was tampered with

Exit codes: 0 done; 1 done, but something was refused or differs; 2 could not run.
Results go to standard output, everything else to standard error.
`sporlog COMMAND --help` says more about each command.";

pub const CHECK: &str = "\
Examples:
  sporlog check revision day.csv
  sporlog check revision day.csv --summary --bad-rows bad.csv      correct bad.csv, and deliver it as a file of its own
  sporlog check disclosure --errors-only messages.ndjson.zst
  kcat -C -t aapen-sporingslogg-loggmeldingMottatt -e | sporlog check disclosure -";

pub const IMPORT: &str = "\
Examples:
  sporlog import revision day.csv
  sporlog import auditlog --log login_odense records.json.gz
  sporlog import disclosure *.ndjson --json | jq .accepted";

pub const LOGS_CREATE: &str = "\
Examples:
  sporlog logs create access quarantine disclosure
  sporlog logs create login_odense --kind auditlog";

pub const STORE_CHECK: &str = "\
Examples:
  sporlog store check s3://records/sporlog
  sporlog store check --json | jq 'select(.ok | not)'";

pub const CONSUME: &str = "\
In sporlog.toml, at the least:
  [kafka]
  brokers = \"127.0.0.1:9092\"
  [[kafka.topic]]
  name = \"aapen-sporingslogg-loggmeldingMottatt\"
  log = \"disclosure\"                  # or disclosure-{partition}, to share the work among instances

Examples:
  sporlog consume
  sporlog consume --until-end --json | jq .accepted";

pub const PULL: &str = "\
In sporlog.toml, for each OS2faktor Login:
  [[pull]]
  name = \"odense\"
  url = \"https://login.example.dk\"
  key_file = \"odense.key\"
  log = \"os2faktor-odense\"

Examples:
  sporlog pull odense                                      until it is stopped, as `sporlog serve` does
  sporlog pull odense --until-head                         the first read, with a progress bar
  sporlog pull odense --from 7192                          go on after this id, whatever came before
  sporlog pull odense --compare --json | jq .missing";

pub const FILES: &str = "\
Examples:
  sporlog files revision
  sporlog files revision --paths | xargs du -ch
  sporlog files revision --json | duckdb -c \"SET VARIABLE files = (SELECT list(path) FROM read_json('/dev/stdin'));
    SELECT count(*) FROM read_parquet(getvariable('files'))\"";

pub const DELIVERIES: &str = "\
Examples:
  sporlog deliveries
  sporlog deliveries --late || mail -s 'deliveries are missing' drift@example.dk
  sporlog deliveries --account ky-leverandoer --json | jq .volume
  sporlog deliveries --list --since 2026-11-01
  sporlog deliveries --list --json | jq -c 'select(.outcome == \"refused\")'";

pub const EXCHANGE_PULL: &str = "\
Examples:
  sporlog exchange pull sftp://rev@sftp.example.dk/ud/2026-11 --into hentet --match '*.csv'
  sporlog exchange pull sftp://rev@sftp.example.dk:2222/ud --recursive --into hentet -i rev.key
  sporlog exchange pull sftp://rev@10.0.0.7/~/logs --into in --delete --host-key SHA256:47DEQ…
  sporlog exchange pull sftp://rev@sftp.example.dk/ud --into hentet --dry-run

Making a server known, once its operator has confirmed the fingerprint:
  ssh-keyscan -p 22 sftp.example.dk | tee key | ssh-keygen -lf - && cat key >> ~/.ssh/known_hosts";

pub const EXCHANGE_PUSH: &str = "\
Examples:
  sporlog exchange push day.csv sftp://supplier@sftp.example.dk/ind
  sporlog exchange push outbox --match '*.csv' sftp://supplier@sftp.example.dk:2222/ind -i key
  sporlog exchange push day.csv sftp://supplier@sftp.example.dk/ind --wait --json | jq .receipt
  sporlog exchange push day.csv sftp://rev@10.0.0.7/~/in --as-is --host-key SHA256:47DEQ…

Every ten minutes, with cron, which mails what is amiss:
  */10 * * * *  sporlog exchange push /srv/outbox sftp://supplier@sftp.example.dk/ind > /dev/null";

pub const READ: &str = "\
Examples:
  sporlog read revision --limit 10
  sporlog read auditlog --after 7192 --limit 100 --records-only
  sporlog read revision --format csv > all.csv";

pub const FIND: &str = "\
Examples:
  sporlog find revision --subject 0101018081
  sporlog find revision --actor 4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8 --limit 50
  sporlog find revision --subject 0101018081 --format table
  sporlog find auditlog --actor bsg --from 2026-11-03 --to 2026-11-03T12:00
  sporlog find 'disclosure*' --subject - --limit 50 < person.txt";

pub const EXPORT: &str = "\
Examples:
  sporlog export revision --organisation 64942212 --date 2026-11-03 --out outbox
  sporlog export revision --organisation 64942212 --from 2026-11-01 --to 2026-11-07 --out outbox";

pub const EXPORT_AUDITLOG: &str = "\
Examples:
  sporlog export auditlog --as revision --organisation 64942212 --system login.kommune.dk --out all.csv
  sporlog export auditlog --as revision -O 64942212 --system login.kommune.dk --from 2026-11-03 --to 2026-11-03 -o day.csv";

pub const COLLECT: &str = "\
Examples:
  sporlog collect                                          what the night would do, and today so far
  sporlog collect --date 2026-11-03 --account kommune-64942212
  sporlog collect --dry-run
On the receiving side, with the log's public key:
  sporlog collect --check ud/2026-11/*.manifest.json --key revision.vkey";

pub const SQL: &str = "\
Examples:
  sporlog sql                                              the shell
  sporlog sql 'SELECT log, count(*) FROM events GROUP BY log'
  sporlog sql 'SELECT \"BrugerId\", count(*) AS n FROM revision GROUP BY 1 ORDER BY n DESC LIMIT 10'
  sporlog sql \"SELECT actor, count(*) AS n FROM events WHERE log = 'revision' AND occurred_precision = 'time'
               AND date_part('hour', occurred_at) NOT BETWEEN 6 AND 19 GROUP BY 1 ORDER BY n DESC LIMIT 10\"
  sporlog sql 'SELECT * FROM events' --format parquet --out events.parquet
  sporlog sql 'SELECT log, count(*) FROM \"disclosure*\" GROUP BY log'
  sporlog sql --file docs/questions.sql                    an auditor's twenty questions
  sporlog sql --file docs/questions.sql --cluster df://scheduler:50050
                                                           the same, run by a cluster of Apache Ballista
  sporlog sql --views spark > views.sql                    the same tables in Spark

Binary columns (leverteData, content) are shown in hexadecimal. Floating-point results that are no numbers are inf, -inf and NaN;
in JSON, which has no such numbers, the texts \"Infinity\", \"-Infinity\" and \"NaN\".

Each statement is recorded in the log access, with each person whose number stands in it as a subject. The shell keeps its
history in ~/.local/state/sporlog/sql_history, for you alone, without the statements that have a personal number in them.";

pub const SERVE: &str = "\
Examples:
  sporlog serve
  sporlog apikey create --name my-system --role read --log auditlog
  curl -H \"ApiKey: $KEY\" http://127.0.0.1:8080/api/auditlog/head
  sporlog serve --listen 0.0.0.0:8443 --config /etc/sporlog/sporlog.toml
  sporlog serve --demo-people people.toml      # the pages for persons, with [[person]] name, pid, country (no or dk)";

pub const NAMES_IMPORT: &str = "\
Examples:
  sporlog names import organisations enheter_alle.json.gz --dry-run
  sporlog names import organisations enheter_alle.json.gz
  sporlog names import topics tema.json
  sporlog names import systems systemer.csv";

pub const BACKUP: &str = "\
Examples:
  sporlog backup /mnt/backup/sporlog
  sporlog backup /mnt/backup/sporlog --with-keys && sporlog verify revision --store /mnt/backup/sporlog
Each night, with cron:
  30 2 * * *  sporlog --quiet --store /var/lib/sporlog backup /mnt/backup/sporlog > /dev/null";

pub const RESTORE: &str = "\
Examples:
  sporlog restore /mnt/backup/sporlog --dry-run                  how far does it go?
  sporlog restore /mnt/backup/sporlog --store /srv/sporlog --since checkpoint-monday
  sporlog restore --in-place revision --dry-run
  sporlog restore --in-place revision";

pub const PROVE: &str = "\
Examples:
  sporlog prove revision 17 --out record17.proof
  sporlog verify --proof record17.proof --key \"$(sporlog key show revision --vkey)\"";

pub const VERIFY: &str = "\
Examples:
  sporlog verify revision
  cp sporlog-data/logs/revision/tlog/checkpoint monday    # keep it; on Friday:
  sporlog verify revision --since monday --key revision.vkey
  sporlog verify --url https://sporlog.example.org/tlog/revision --key revision.vkey --since monday
  sporlog verify --proof record17.proof --key revision.vkey
In parts, each of which may run on a machine of its own:
  sporlog verify revision --range 1..5000000 > part1
  sporlog verify revision --range 5000001.. > part2
  sporlog verify revision --join part1 part2";

pub const QUARANTINE: &str = "\
Examples:
  sporlog quarantine list
  sporlog quarantine show 3
  sporlog quarantine show 3 --content > row.csv           # correct it, and then:
  sporlog quarantine replay 3 --file row.csv
  sporlog quarantine discard 4 7-12 --reason 'test data, agreed with the supplier'
  sporlog quarantine discard --delivery 20261121T152024Z-83a0b455 --reason 'delivered again, corrected'";

pub const EXPIRE: &str = "\
Examples:
  sporlog expire revision --before 2026-05 --dry-run
  sporlog expire revision --before 2026-05";

pub const KEY: &str = "\
Publish the vkey where the log's keeper cannot change it unseen: with it, anybody can check the
log's checkpoints and proofs.

Examples:
  sporlog key show revision
  sporlog key show revision --vkey > revision.vkey
  sporlog key rotate revision > revision-new.vkey";

pub const APIKEY: &str = "\
Examples:
  sporlog apikey create --name odense --role read --log 'revision*' --organisation 64942212
  sporlog apikey create --name nav --role write --log disclosure --expires 2027-06-30 > nav.key
  sporlog apikey list
  sporlog apikey rotate nav > nav.key
  sporlog apikey revoke nav";

pub const SAMPLE: &str = "\
Examples:
  sporlog sample revision --records 100000 --out day.csv
  sporlog sample disclosure --records 50 --faulty 0.2 | sporlog check disclosure -";

pub const COMPLETIONS: &str = "\
Examples:
  sporlog completions bash > ~/.local/share/bash-completion/completions/sporlog
  sporlog completions fish > ~/.config/fish/completions/sporlog.fish";

pub const CONFIG: &str = "\
Examples:
  sporlog config example > sporlog.toml
  sporlog config check
  SPORLOG_SERVER__LISTEN=0.0.0.0:8443 sporlog config check --print";

pub const EXCHANGE: &str = "\
Examples:
  sporlog exchange                          watch the suppliers' folders, and write files by night
  sporlog exchange --once --json            take what is there; an object for each delivery
  sporlog exchange pull sftp://kommune@exchange.example.org/ud --into /srv/revisionslog
  sporlog exchange push day.csv sftp://ky@exchange.example.org/ind";
