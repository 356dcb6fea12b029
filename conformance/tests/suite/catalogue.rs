//! That the suite and the table of cases name the same tests.

use std::collections::BTreeSet;
use std::process::Command;

use countersign_conformance::catalogue::cases;

/// The modules of cases; the others are about the suite itself, or go beyond the catalogue.
const GROUPS: [&str; 10] = ["ep", "wa", "xs", "xv", "xf", "jv", "jb", "jf", "id", "hx"];

#[test]
fn each_case_has_its_tests_and_each_test_its_case() {
    let list = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let tests: BTreeSet<&str> = tests.filter(|test| GROUPS.contains(&test.split("::").next().unwrap())).collect();
    let listed: Vec<&str> = cases().flat_map(|case| case.results).map(|(_, test)| *test).collect();
    assert_eq!(tests, listed.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(tests.len(), listed.len(), "a test is listed twice");
}

#[test]
fn each_test_has_the_name_of_its_case() {
    for case in cases() {
        let group = case.id.split('-').next().unwrap().to_lowercase();
        let prefix = format!("{}_", case.id.to_lowercase().replace('-', "_"));
        for (_, test) in case.results {
            let name = test.rsplit("::").next().unwrap();
            assert!(test.starts_with(&format!("{group}::")) && name.starts_with(&prefix), "{}: {test}", case.id);
        }
    }
}

/// The cases of the catalogue, by group and highest number.
#[test]
fn no_case_of_the_catalogue_is_left_out() {
    let groups = [
        ("EP", 8),
        ("WA", 4),
        ("XS", 5),
        ("XV", 15),
        ("XF", 3),
        ("JV", 25),
        ("JB", 8),
        ("JF", 4),
        ("ID", 2),
        ("HX", 9),
    ];
    let expected = groups.iter().flat_map(|(group, last)| (1..=*last).map(move |number| format!("{group}-{number}")));
    let listed: BTreeSet<String> = cases().map(|case| case.id.to_owned()).collect();
    assert_eq!(listed, expected.collect());
}
