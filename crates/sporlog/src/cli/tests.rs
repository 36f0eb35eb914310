//! The definitions hold together.

use clap::CommandFactory;

use super::*;

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_argument_has_a_help_text() {
    fn look(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(look);
    }
    look(&Cli::command());
}

#[test]
fn a_command_says_more_in_its_own_help() {
    let mut cli = Cli::command();
    let find = cli.find_subcommand_mut("find").expect("a command");
    let long = find.render_long_help().to_string();
    assert!(long.contains("local time") && long.contains("Examples:"), "{long}");
    assert!(!find.render_help().to_string().contains("--from 2026-11-03 means"));
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn what_belongs_together_is_asked_for_together() {
    for good in [
        "sporlog find revision --subject 0101018081",
        "sporlog find revision --actor x --from 2026-01-01 --to 2026-01-01T12:00",
        "sporlog verify revision",
        "sporlog verify revision --since checkpoint",
        "sporlog verify --proof p --key k",
        "sporlog verify revision --key k",
        "sporlog verify revision --since checkpoint --key k",
        "sporlog verify --url https://example.org/tlog/revision --key k --since checkpoint",
        "sporlog export revision --organisation 64942212 --date 2026-01-05 --out x",
        "sporlog --store x head revision --json",
        "sporlog restore b --since c --since d",
        "sporlog restore --in-place revision --dry-run",
    ] {
        parse(good).expect(good);
    }
    for bad in [
        "sporlog find revision",
        "sporlog find revision --subject a --actor b",
        "sporlog verify",
        "sporlog verify --proof p",
        "sporlog verify --proof p --key k --since checkpoint",
        "sporlog verify --since checkpoint --key k",
        "sporlog verify --url https://example.org/tlog/revision",
        "sporlog verify revision --url https://example.org/tlog/revision --key k",
        "sporlog verify revision --proof p --key k",
        "sporlog export revision --organisation 6494221 --out x",
        "sporlog export revision --organisation 64942212 --date 2026-01-05 --to 2026-01-06 --out x",
        "sporlog import quarantine file",
        "sporlog import revision",
        "sporlog backup",
        "sporlog restore",
        "sporlog restore b --in-place revision",
        "sporlog restore --in-place revision --since c",
        "sporlog sample revision",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
