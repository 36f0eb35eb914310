-- Twenty questions of an auditor, as they stand for `sporlog sql --file docs/questions.sql`, and for Spark after
-- `sporlog sql --views spark` (docs/verifying.md). Each is to be changed: the log, the hours, the limits, the lists.
--
-- The view `events` has what all logs have in common: who (actor) saw or was given whose (subject) data, when, through which
-- system, for which organisation, on what ground. A log's own columns are in the table of its name; names with capitals stand
-- in backticks, which both programs read. Both differ in how they number the days of a week and in where they sort nulls.
--
-- 1. What was recorded, log by log and day by day? A day without records, or with few, may be a source that failed.
SELECT log, CAST(occurred_at AS DATE) AS on_day, count(*) AS records, count(DISTINCT subject) AS people,
       count(DISTINCT actor) AS users
FROM events
WHERE log <> 'access' AND occurred_at IS NOT NULL
GROUP BY log, CAST(occurred_at AS DATE)
ORDER BY log, on_day;

-- 2. Through which systems were people looked up without a case, and how often of how many times?
SELECT system, count(*) AS look_ups, count(*) FILTER (WHERE coalesce(trim(case_id), '') = '') AS without_case
FROM events
WHERE log = 'revision' AND subject IS NOT NULL AND system IS NOT NULL
GROUP BY system
HAVING count(*) FILTER (WHERE coalesce(trim(case_id), '') = '') > 0
ORDER BY without_case DESC, system;

-- 3. Which users looked the most people up without a case?
SELECT organisation, actor, count(DISTINCT subject) AS people, count(*) AS look_ups
FROM events
WHERE log = 'revision' AND subject IS NOT NULL AND coalesce(trim(case_id), '') = ''
GROUP BY organisation, actor
ORDER BY people DESC, look_ups DESC, organisation, actor
LIMIT 20;

-- 4. Who looked people up outside working hours, here before 6 and from 20 on, as far as the time of day is known?
SELECT organisation, actor, count(*) AS look_ups, count(DISTINCT subject) AS people
FROM events
WHERE log = 'revision' AND subject IS NOT NULL AND occurred_precision = 'time'
  AND date_part('hour', occurred_at) NOT BETWEEN 6 AND 19
GROUP BY organisation, actor
ORDER BY look_ups DESC, organisation, actor
LIMIT 20;

-- 5. Who looked people up on Saturdays and Sundays? Days are counted from a Sunday: 0 is a Sunday and 6 a Saturday.
SELECT organisation, actor, count(*) AS look_ups, count(DISTINCT CAST(occurred_at AS DATE)) AS on_days
FROM events
WHERE log = 'revision' AND subject IS NOT NULL
  AND (date_part('dow', occurred_at) - date_part('dow', DATE '2026-01-04') + 7) % 7 IN (0, 6)
GROUP BY organisation, actor
ORDER BY look_ups DESC, organisation, actor
LIMIT 20;

-- 6. Which look-ups fell on a holiday? The list has Denmark's of 2026, and for the sample data a local one.
SELECT holidays.name, events.organisation, count(*) AS look_ups, count(DISTINCT events.actor) AS users
FROM events
JOIN (VALUES (DATE '2026-01-01', 'New Year'), (DATE '2026-01-06', 'a local holiday'),
             (DATE '2026-04-02', 'Maundy Thursday'), (DATE '2026-04-03', 'Good Friday'),
             (DATE '2026-04-05', 'Easter Sunday'), (DATE '2026-04-06', 'Easter Monday'),
             (DATE '2026-05-14', 'Ascension Day'), (DATE '2026-05-24', 'Whit Sunday'),
             (DATE '2026-05-25', 'Whit Monday'), (DATE '2026-12-25', 'Christmas Day'),
             (DATE '2026-12-26', 'Second Christmas Day')) AS holidays(on_day, name)
  ON CAST(events.occurred_at AS DATE) = holidays.on_day
WHERE events.log = 'revision' AND events.subject IS NOT NULL
GROUP BY holidays.name, events.organisation
ORDER BY look_ups DESC, holidays.name, events.organisation
LIMIT 20;

-- 7. Who looked far more people up on a day than is usual: three times the average of the users of the same organisation?
WITH days AS (
    SELECT organisation, actor, CAST(occurred_at AS DATE) AS on_day, count(DISTINCT subject) AS people
    FROM events
    WHERE log = 'revision' AND subject IS NOT NULL
    GROUP BY organisation, actor, CAST(occurred_at AS DATE)
), usual AS (
    SELECT organisation, avg(people) AS people FROM days GROUP BY organisation
)
SELECT days.organisation, days.actor, days.on_day, days.people
FROM days JOIN usual ON days.organisation = usual.organisation
WHERE days.people > 3 * usual.people
ORDER BY days.people DESC, days.organisation, days.actor, days.on_day
LIMIT 20;

-- 8. Which people were looked up by the most users?
SELECT subject, count(DISTINCT actor) AS users, count(DISTINCT organisation) AS organisations, count(*) AS look_ups
FROM events
WHERE log = 'revision' AND subject IS NOT NULL
GROUP BY subject
HAVING count(DISTINCT actor) > 1
ORDER BY users DESC, look_ups DESC, subject
LIMIT 20;

-- 9. Which people were looked up by several users on one day? So it is when somebody is in the news.
SELECT subject, CAST(occurred_at AS DATE) AS on_day, count(DISTINCT actor) AS users, min(actor) AS one, max(actor) AS another
FROM events
WHERE log = 'revision' AND subject IS NOT NULL
GROUP BY subject, CAST(occurred_at AS DATE)
HAVING count(DISTINCT actor) > 1
ORDER BY users DESC, on_day, subject
LIMIT 20;

-- 10. Who looked the same person up on many different days, without a case on any of them?
SELECT actor, subject, count(DISTINCT CAST(occurred_at AS DATE)) AS on_days, count(*) AS look_ups
FROM events
WHERE log = 'revision' AND subject IS NOT NULL
GROUP BY actor, subject
HAVING count(DISTINCT CAST(occurred_at AS DATE)) > 1 AND count(*) FILTER (WHERE coalesce(trim(case_id), '') <> '') = 0
ORDER BY on_days DESC, look_ups DESC, actor, subject
LIMIT 20;

-- 11. Who looked several people up within one minute? More than a person can read may be a program with a person's account.
SELECT actor, CAST(occurred_at AS DATE) AS on_day, date_part('hour', occurred_at) AS at_hour,
       date_part('minute', occurred_at) AS at_minute, count(DISTINCT subject) AS people
FROM events
WHERE log = 'revision' AND subject IS NOT NULL AND occurred_precision = 'time'
GROUP BY actor, CAST(occurred_at AS DATE), date_part('hour', occurred_at), date_part('minute', occurred_at)
HAVING count(DISTINCT subject) > 1
ORDER BY people DESC, actor, on_day, at_hour, at_minute
LIMIT 20;

-- 12. Which users were never seen before the last day that there are look-ups of?
WITH seen AS (
    SELECT actor, min(CAST(occurred_at AS DATE)) AS first_day, count(*) AS look_ups, count(DISTINCT subject) AS people
    FROM events
    WHERE log = 'revision' AND actor IS NOT NULL AND occurred_at IS NOT NULL
    GROUP BY actor
)
SELECT actor, first_day, look_ups, people
FROM seen
WHERE first_day = (SELECT max(CAST(occurred_at AS DATE)) FROM events WHERE log = 'revision')
ORDER BY look_ups DESC, actor
LIMIT 20;

-- 13. Which users came back after a week or longer in which they looked nobody up? An account that nobody used may have been taken.
WITH look_ups AS (
    SELECT actor, occurred_at, lag(occurred_at) OVER (PARTITION BY actor ORDER BY occurred_at, id) AS before
    FROM events
    WHERE log = 'revision' AND actor IS NOT NULL AND occurred_at IS NOT NULL
)
SELECT actor, CAST(before AS DATE) AS last_day, CAST(occurred_at AS DATE) AS next_day
FROM look_ups
WHERE occurred_at > before + INTERVAL '7' DAY
ORDER BY last_day, next_day, actor
LIMIT 20;

-- 14. Were accounts used after they were closed? The list is the personnel system's: the user, and the last day.
SELECT events.actor, closed.last_day, count(*) AS look_ups, count(DISTINCT events.subject) AS people
FROM events
JOIN (VALUES ('90df7cf8-2f8a-47b3-8927-53f51008fe37', DATE '2026-01-04'),
             ('26314078-da51-4db7-b0e8-7ec80cc2952a', DATE '2026-12-31')) AS closed(actor, last_day)
  ON events.actor = closed.actor
WHERE events.log = 'revision' AND CAST(events.occurred_at AS DATE) > closed.last_day
GROUP BY events.actor, closed.last_day
ORDER BY look_ups DESC, events.actor;

-- 15. How much does each department look up, and how many people for each of its users?
SELECT `BrugerOrganisationEnhedNavn` AS department, count(DISTINCT `BrugerId`) AS users,
       count(DISTINCT `BorgerId`) AS people, count(*) AS look_ups
FROM revision
WHERE `BrugerOrganisationEnhedNavn` IS NOT NULL
GROUP BY `BrugerOrganisationEnhedNavn`
ORDER BY look_ups DESC, department
LIMIT 20;

-- 16. For which services is no purpose given (the field Note), or one that says nothing?
SELECT system, action, count(*) AS look_ups, count(DISTINCT actor) AS users
FROM events
WHERE log = 'revision' AND subject IS NOT NULL AND char_length(coalesce(trim(ground), '')) < 15
GROUP BY system, action
ORDER BY look_ups DESC, coalesce(system, ''), coalesce(action, '')
LIMIT 20;

-- 17. Which records came a week or more after what they tell of? Whoever looked at the log in between did not see them.
SELECT log, count(*) AS records, count(*) FILTER (WHERE received_at > occurred_at + INTERVAL '7' DAY) AS late
FROM events
WHERE log IN ('revision', 'disclosure') AND occurred_at IS NOT NULL
GROUP BY log
ORDER BY log;

-- 18. Who was given data about the most people, and on how many grounds? Large exports stand at the top.
SELECT recipient, CAST(occurred_at AS DATE) AS on_day, count(DISTINCT subject) AS people, count(DISTINCT ground) AS grounds
FROM events
WHERE log = 'disclosure'
GROUP BY recipient, CAST(occurred_at AS DATE)
ORDER BY people DESC, recipient, on_day
LIMIT 20;

-- 19. To whom was data handed out on the ground of consent, without a token that shows the consent?
SELECT mottaker, `behandlingsGrunnlag` AS ground, count(*) AS disclosures, count(DISTINCT person) AS people
FROM disclosure
WHERE lower(`behandlingsGrunnlag`) LIKE '%samtykke%' AND `samtykkeToken` IS NULL
GROUP BY mottaker, `behandlingsGrunnlag`
ORDER BY disclosures DESC, mottaker, ground
LIMIT 20;

-- 20. Who did something for a person of the same family name, which may be a relative?
SELECT id, `performerName`, `personName`, `logAction`
FROM auditlog
WHERE `performerId` <> `personId`
  AND split_part(trim(`performerName`), ' ', -1) = split_part(trim(`personName`), ' ', -1)
ORDER BY id
LIMIT 20;
