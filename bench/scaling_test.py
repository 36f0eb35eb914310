"""Tests of scaling.py and scaling_day.py: python3 -B -m unittest discover -s bench -p '*_test.py'"""

import json
import tempfile
import tomllib
import unittest
from pathlib import Path

import scaling
from scaling_day import DAY, Files, Rules, deliveries, messages, rule

GIVEN = tomllib.loads((scaling.HERE / "country.toml").read_text())
MEASURED = sorted((scaling.HERE / "measured").glob("*.json"))
RULES = Rules()


def country(files=(), seed=1, scale=1):
    costs = scaling.Costs(scaling.Figures([*MEASURED, *files]), RULES)
    return scaling.Country(GIVEN, costs, RULES, scale, seed)


def loads(files=()):
    return {part: share for part, _, share in country(files).loads()}


class Inputs(unittest.TestCase):
    def test_a_newer_result_counts_and_an_older_one_does_not(self):
        for date, halved in (("2999-01-01", 2), ("1999-01-01", 1)):
            with self.subTest(date), tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "run.json"
                rate = scaling.Figures(MEASURED)("verify")
                figure = {"name": "verify", "what": "verify", "unit": "/s", "sporlog": rate / 2}
                file.write_text(json.dumps({"about": {"date": date}, "figures": [figure]}))
                audit = "audit of all records, disk"
                self.assertAlmostEqual(loads([file])[audit], halved * loads()[audit])

    def test_a_missing_figure_is_named(self):
        with self.assertRaisesRegex(SystemExit, "size-csv"):
            scaling.Figures([])("size-csv")

    def test_a_rule_that_is_gone_is_named(self):
        with self.assertRaisesRegex(LookupError, "NO_SUCH_RULE"):
            rule("compact.rs", "NO_SUCH_RULE")

    def test_the_same_seed_gives_the_same_day(self):
        self.assertEqual(country().loads(), country().loads())
        self.assertNotEqual(country().loads(), country(seed=2).loads())


class Merging(unittest.TestCase):
    def files(self, *rows):
        files = Files(RULES)
        for each in rows:
            files.commit(each)
        return files

    def test_flushes_of_one_size_are_merged_in_the_background(self):
        files = self.files(*[RULES.many] * RULES.merge_every)
        self.assertEqual(files.rows, [RULES.many * RULES.merge_every])

    def test_as_many_files_are_merged_as_fill_one(self):
        rows = RULES.merged_rows // (RULES.neighbours - 2)
        files = self.files(*[rows] * RULES.merge_every)
        self.assertEqual(files.rows[:2], [rows * (RULES.neighbours - 2)] * 2)
        self.assertLess(len(files.rows), RULES.neighbours)

    def test_files_of_more_than_half_the_size_are_left_alone(self):
        files = self.files(*[RULES.merged_rows // 2 + 1] * RULES.merge_every)
        self.assertEqual(len(files.rows), RULES.merge_every)

    def test_no_record_is_lost_and_no_file_becomes_too_large(self):
        files = self.files(*[1 + n * 7_919 % RULES.merged_rows for n in range(500)])
        before = sum(files.rows)
        files.compact()
        self.assertEqual(sum(files.rows), before)
        self.assertLessEqual(max(files.rows), RULES.merged_rows)
        self.assertTrue(all(a + b > RULES.merged_rows for a, b in zip(files.rows, files.rows[1:])))


class Day(unittest.TestCase):
    def test_deliveries_wait_for_those_before_them(self):
        night = lambda seconds: deliveries(RULES, 1, 300, 3_000_000, 1.2, (0, 6), 2_000_000, lambda _: seconds)
        quick, slow = night(0.001), night(100)
        self.assertEqual(quick.longest_queue, 1)
        self.assertGreater(slow.longest_queue, 50)
        self.assertGreaterEqual(slow.done, 300 * 100)
        self.assertEqual(quick.rows, sum(quick.left.rows))

    def test_messages_become_frames_and_flushes_or_wait(self):
        for capacity, wait in ((10_000, False), (50, True)):
            day = messages(RULES, 1, 10_000_000, [1] * 24, capacity, 0.05)
            self.assertLessEqual(day.frames, DAY * 20)
            self.assertLessEqual(day.flushes, DAY)
            self.assertEqual(day.longest_queue > 0, wait)
            self.assertAlmostEqual((day.records + day.left_over) / 10_000_000, 1, places=2)
            self.assertLess(day.records - sum(day.left.rows), RULES.most)

    def test_few_messages_become_a_file_an_hour(self):
        day = messages(RULES, 1, 1_440, [1] * 24, 10_000, 0.05)
        self.assertIn(day.flushes, (23, 24))


class Machines(unittest.TestCase):
    def test_exchanges_that_share_the_suppliers_also_compare_with_fewer_rows(self):
        large = country(scale=100)
        exchanges = large.machines()[0][1]
        one_alone = dict((part, load) for part, _, load in large.loads())["deliveries, disk"]
        self.assertGreater(exchanges, 1)
        self.assertLess(exchanges, one_alone / 2)

    def test_ten_times_as_much_needs_no_less(self):
        for (part, few), (_, many) in zip(country().machines(), country(scale=10).machines()):
            self.assertLessEqual(few, many, part)


class Money(unittest.TestCase):
    def test_storage_is_paid_by_tiers(self):
        prices = {"storage": [[10, 3], [20, 2], [1e9, 1]]}
        self.assertEqual(scaling.storage_money(prices, 5 * scaling.GIB), 15)
        self.assertEqual(scaling.storage_money(prices, 25 * scaling.GIB), 30 + 20 + 5)

    def test_requests_are_paid_by_the_thousand(self):
        self.assertEqual(scaling.money({"put_1000": 5, "get_1000": 1}, 2_000, 3_000), 13)


if __name__ == "__main__":
    unittest.main()
