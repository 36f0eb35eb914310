"""The program that is measured, as its users start it."""

import json


def options(store):
    """For a store in a folder, or for one in a bucket: its address and the folder of its keys."""
    address, *keys = store if isinstance(store, tuple) else (store,)
    return ["--store", address, *(part for folder in keys for part in ("--keys", folder))]


class Sporlog:
    def __init__(self, path, measure):
        self.path = path
        self.measure_path = measure

    def command(self, place, store, *args):
        return place.run([self.path, "--quiet", "--json", *options(store), *args])

    def sample(self, place, rows, out):
        """Revision logs without faults."""
        place.run([self.path, *self.sample_args(rows), "--out", out])

    @staticmethod
    def sample_args(rows, days=1):
        return ["sample", "revision", "--records", str(rows), "--faulty", "0", "--days", str(days)]

    def import_revision(self, place, store, csv, rows):
        return self.import_file(place, store, "revision", csv, rows)

    def import_file(self, place, store, kind, file, records):
        """Every record has to be accepted."""
        ran = self.command(place, store, "import", kind, file)
        receipt = json.loads(ran.stdout)
        if receipt["accepted"] != records or receipt["quarantined"]:
            raise RuntimeError(f"of {records} records, {receipt['accepted']} were accepted")
        return ran, receipt

    def export(self, place, store, organisation, day, out):
        args = ["export", "revision", "--organisation", organisation, "--date", day, "--out", out]
        ran = self.command(place, store, *args)
        return ran, json.loads(ran.stdout)

    def verify(self, place, store, log, records):
        """The log has to be in order and hold so many records."""
        ran = self.command(place, store, "verify", log)
        verified = json.loads(ran.stdout)
        if not verified["ok"] or verified["records"] != records:
            raise RuntimeError(f"verify {log}: {ran.stdout}")
        return ran

    def measure(self, place, *args):
        """Has the measuring tool measure within one process."""
        return json.loads(place.run([self.measure_path, *map(str, args)]).stdout)
