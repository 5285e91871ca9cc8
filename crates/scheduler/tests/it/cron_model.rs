//! The search against a model that walks through time minute by minute, around every change of the clocks of every
//! zone since 2016.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::{TimeZone, TimeZoneTransition};
use scheduler::{Cron, Zone};

/// An expression and, written a second time, what it means.
struct Case {
    cron: &'static str,
    is_interval: bool,
    matches: fn(DateTime) -> bool,
}

const CASES: &[Case] = &[
    Case {
        cron: "* * * * *",
        is_interval: true,
        matches: |_| true,
    },
    Case {
        cron: "*/7 * * * *",
        is_interval: true,
        matches: |at| at.minute() % 7 == 0,
    },
    Case {
        cron: "15 * * * *",
        is_interval: true,
        matches: |at| at.minute() == 15,
    },
    Case {
        cron: "* 2 * * *",
        is_interval: true,
        matches: |at| at.hour() == 2,
    },
    Case {
        cron: "30 */2 * * *",
        is_interval: true,
        matches: |at| at.minute() == 30 && at.hour() % 2 == 0,
    },
    Case {
        cron: "0 0 * * *",
        is_interval: false,
        matches: |at| at.hour() == 0 && at.minute() == 0,
    },
    Case {
        cron: "30 2 * * *",
        is_interval: false,
        matches: |at| at.hour() == 2 && at.minute() == 30,
    },
    Case {
        cron: "5,25,45 1-3 * * *",
        is_interval: false,
        matches: |at| (1..=3).contains(&at.hour()) && [5, 25, 45].contains(&at.minute()),
    },
    Case {
        cron: "0-59 0-23 * * *",
        is_interval: false,
        matches: |_| true,
    },
    Case {
        cron: "20 0,1,2,23 * * SUN",
        is_interval: false,
        matches: |at| {
            [0, 1, 2, 23].contains(&at.hour())
                && at.minute() == 20
                && at.date().weekday() == Weekday::Sunday
        },
    },
    Case {
        cron: "40 2 L * *",
        is_interval: false,
        matches: |at| at.hour() == 2 && at.minute() == 40 && at.day() == at.days_in_month(),
    },
];

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// Fire times in the window, by walking: an interval job fires whenever its local time comes; a fixed-time job when
/// the clock passes a time that it never showed or passed before.
fn walked(case: &Case, zone: &TimeZone, window: (i64, i64)) -> Vec<i64> {
    let local = |second| zone.to_datetime(Timestamp::from_second(second).unwrap());
    let ahead = |at: DateTime| at.checked_add(jiff::Span::new().minutes(1)).unwrap();
    // What was shown before the window counts as passed.
    let mut passed = (-2 * DAY..0)
        .step_by(60)
        .map(|back| local(window.0 + back))
        .max()
        .unwrap();
    let mut found = Vec::new();
    for second in (window.0..window.1).step_by(60) {
        let shown = local(second);
        let mut fires = (case.matches)(shown) && (case.is_interval || shown > passed);
        let mut skipped = ahead(passed);
        while !case.is_interval && skipped < shown {
            fires |= (case.matches)(skipped);
            skipped = ahead(skipped);
        }
        passed = passed.max(shown);
        if fires {
            found.push(second);
        }
    }
    found
}

fn searched(cron: &Cron, zone: &Zone, window: (i64, i64)) -> Vec<i64> {
    let mut cursor = cron.cursor(zone);
    let mut at_ms = (window.0 * 1_000 - 1).cast_unsigned();
    let mut found = Vec::new();
    while let Some(next_ms) = cursor.next_after_ms(at_ms) {
        assert_eq!(
            cron.next_after_ms(at_ms, zone),
            Some(next_ms),
            "the cursor's memory changes nothing"
        );
        let second = (next_ms / 1_000).cast_signed();
        if second >= window.1 {
            break;
        }
        found.push(second);
        at_ms = next_ms;
    }
    found
}

fn transitions(zone: &TimeZone) -> Vec<TimeZoneTransition<'_>> {
    let from: Timestamp = "2016-01-01T00:00:00Z".parse().unwrap();
    let until: Timestamp = "2027-12-31T00:00:00Z".parse().unwrap();
    let all = zone.following(from);
    all.take_while(|transition| transition.timestamp() < until)
        .collect()
}

#[test]
fn the_search_finds_what_a_walk_finds_around_every_change_of_every_zone_since_2016() {
    let crons: Vec<Cron> = CASES
        .iter()
        .map(|case| case.cron.parse().unwrap())
        .collect();
    for (case, cron) in CASES.iter().zip(&crons) {
        assert_eq!(cron.is_interval(), case.is_interval, "{}", case.cron);
    }
    let mut seen = HashSet::new();
    let mut changes = 0;
    for name in jiff::tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        let ours = Zone::named(name.as_str()).unwrap();
        for transition in transitions(&zone) {
            let at = transition.timestamp().as_second();
            let before = Timestamp::from_second(at - 1).unwrap();
            let change = (at, zone.to_offset(before), transition.offset());
            // Names, and zones that agree about this change, are many; minutes are what is walked.
            if !seen.insert(change) || at % MINUTE != 0 {
                continue;
            }
            changes += 1;
            let window = (at - 3 * 3_600, at + 4 * 3_600);
            for (case, cron) in CASES.iter().zip(&crons) {
                let expected = walked(case, &zone, window);
                let found = searched(cron, &ours, window);
                assert_eq!(
                    found,
                    expected,
                    "{} in {}, change at {at}",
                    case.cron,
                    name.as_str()
                );
            }
        }
    }
    assert!(
        changes > 400,
        "{changes} changes: is the zone database whole?"
    );
}

#[test]
fn seconds_are_found_through_both_changes() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let ours = Zone::named("Europe/Berlin").unwrap();
    for transition in transitions(&zone) {
        let at = transition.timestamp().as_second();
        for (text, every) in [("*/20 * * * * *", 20), ("30 * * * * *", 60)] {
            let window = (at - 4_000, at + 8_000);
            let cron: Cron = text.parse().unwrap();
            let found = searched(&cron, &ours, window);
            let offset = if every == 60 { 30 } else { 0 };
            let expected: Vec<i64> = (window.0..window.1)
                .filter(|second| second.rem_euclid(every) == offset)
                .collect();
            assert_eq!(found, expected, "{text} at {at}");
        }
    }
}

/// A search that skips years finds what one that goes from day to day finds on the same dates.
#[test]
fn what_fires_seldom_is_found_beyond_many_changes() {
    let is_last = |at: DateTime| at.day() == at.days_in_month();
    let is_leap_day = |at: DateTime| at.month() == 2 && at.day() == 29;
    let is_last_sunday = |at: DateTime| {
        let is_sunday = at.date().weekday() == Weekday::Sunday;
        is_sunday && at.day() + 7 > at.days_in_month() && [3, 10].contains(&at.month())
    };
    type On = fn(DateTime) -> bool;
    let cases: [(&str, &str, On); 6] = [
        ("40 2 L * *", "40 2 * * *", is_last),
        ("*/30 2 L * *", "*/30 2 * * *", is_last),
        ("30 2 29 2 *", "30 2 * * *", is_leap_day),
        ("*/20 1 29 2 *", "*/20 1 * * *", is_leap_day),
        ("30 2 * 3,10 SUNL", "30 2 * * *", is_last_sunday),
        ("*/10 1 * 3,10 SUNL", "*/10 1 * * *", is_last_sunday),
    ];
    let window = ["2016-01-01T00:00:00Z", "2027-12-31T00:00:00Z"]
        .map(|text| text.parse::<Timestamp>().unwrap().as_second());
    for name in [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "Pacific/Apia",
        "America/Caracas",
    ] {
        let zone = TimeZone::get(name).unwrap();
        let ours = Zone::named(name).unwrap();
        for (seldom, daily, is_on) in cases {
            let window = (window[0], window[1]);
            let mut expected = searched(&daily.parse().unwrap(), &ours, window);
            let local = |second| zone.to_datetime(Timestamp::from_second(second).unwrap());
            expected.retain(|second| is_on(local(*second)));
            let found = searched(&seldom.parse().unwrap(), &ours, window);
            assert!(found.len() > 2, "{seldom} in {name}");
            assert_eq!(found, expected, "{seldom} in {name}");
        }
    }
}
