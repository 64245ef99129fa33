//! The list of all cases, and what makes tests of it.

/// Makes one test of each case of the conformance suite.
///
/// Takes the attributes of a test, its attribute macro among them, and an `async` block that makes
/// a [`Harness`](crate::conformance::Harness), anew for each case. With tokio's clock paused:
///
/// ```text
/// plimsoll_discovery_api::conformance_tests! {
///     #[tokio::test(start_paused = true)]
///     async { MemoryHarness::new() }
/// }
/// ```
///
/// Expand it within a module of its own to run the suite twice, such as bare and behind another
/// `Arc<dyn Registry>`: what a harness hands out is its own affair.
#[macro_export]
macro_rules! conformance_tests {
    ($(#[$attribute:meta])+ async $harness:block) => {
        $crate::__conformance_cases! { [$crate::__conformance_tests] [$(#[$attribute])+] [$harness] }
    };
}

/// The one list of all cases, by module, handed to the macro named in brackets.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ([$($then:tt)+] $($payload:tt)*) => {
        $($then)+! { $($payload)*
            conflict {
                a_conflict_with_a_living_owner_is_reported_in_the_end
                a_second_owner_conflicts_until_the_first_leaves
                a_second_owner_conflicts_within_one_process_too
                giving_up_in_conflict_leaves_the_owner_untouched
                the_id_of_a_dead_owner_is_waited_for
            }
            departure {
                a_deliberate_scale_to_zero_ends_empty
                a_graceful_departure_of_many_is_immediate
                a_mass_loss_is_held_down
                a_single_crash_takes_effect_at_once
            }
            deregister {
                a_dropped_deregister_still_stands
                a_racing_repair_never_undoes_a_deregistration
                an_id_given_up_can_be_taken_anew
                deregister_is_bounded_in_an_outage
                deregister_is_immediate_and_final
                deregister_may_be_repeated
                deregister_while_pending_wins
                dropping_a_registration_removes_the_instance
            }
            handle {
                a_handle_works_on_in_another_runtime
                capabilities_are_sane
                dropping_everything_leaves_no_task
                registrations_and_watches_outlive_their_handle
                what_was_begun_in_a_runtime_that_has_ended_says_so
            }
            lease {
                a_load_write_of_a_former_incarnation_is_refused
                a_record_that_nothing_keeps_alive_is_no_member_and_its_id_is_free
                an_expired_registration_returns_with_the_current_load
                an_expiry_shows_as_lost_then_live
            }
            load {
                a_flush_after_deregistration_is_closed
                a_flush_publishes_the_load_at_once
                a_flush_while_not_live_is_unavailable
                an_unchanged_load_is_published_again
                load_updates_wake_no_watcher_and_change_no_identity
                the_load_is_published_without_being_asked
                the_load_is_zero_after_the_last_guard_drops
                who_comes_and_goes_in_an_outage_leaves_no_load_behind
            }
            log {
                a_registry_that_never_answers_is_told_of
                every_change_of_state_is_one_line
            }
            names {
                ids_of_any_form_stand_side_by_side
                prefixes_never_mix
                services_lists_names
                unicode_and_maximal_names_round_trip
            }
            neighbours {
                a_neighbours_odd_value_hides_nobody_else
            }
            outage {
                a_loss_of_all_data_is_never_an_empty_list
                a_read_in_an_outage_is_an_error
                a_watch_started_in_an_outage_yields_once_the_registry_is_back
                a_wiped_registry_is_filled_again
                an_outage_keeps_the_last_good_set_marked_stale
                an_outage_longer_than_the_lease_ends_with_all_registered
                what_changed_in_an_outage_is_seen_afterwards
            }
            register {
                a_registration_dropped_while_pending_never_appears
                every_attribute_round_trips
                register_returns_while_the_registry_is_down
                registered_instance_becomes_visible
                the_largest_description_round_trips_or_is_refused
            }
            update {
                a_change_of_status_is_seen
                an_update_in_an_outage_is_written_afterwards
                an_update_keeps_the_incarnation
                an_update_to_another_server_is_refused
            }
            watch {
                a_late_watcher_gets_the_present_set
                a_slow_watcher_sees_the_latest_state
                a_watch_converges_under_churn
                a_watch_of_members_alone_sees_the_same_members
                a_watch_yields_the_present_set_first
                an_entry_that_cannot_be_understood_is_skipped
                an_unknown_service_is_empty
                loads_are_followed_once_somebody_watches_them
                two_watchers_agree
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($attributes:tt $harness:tt $($module:ident { $($case:ident)+ })+) => {
        $($($crate::__conformance_test! { $attributes $harness $module $case })+)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ([$(#[$attribute:meta])+] [$harness:block] $module:ident $case:ident) => {
        $(#[$attribute])+
        async fn $case() {
            let harness = async $harness.await;
            // On the heap: some cases are larger than what is comfortable on a test's stack.
            ::std::boxed::Box::pin($crate::conformance::$module::$case(&harness)).await;
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    macro_rules! names {
        ($($module:ident { $($case:ident)+ })+) => {
            [$($((stringify!($module), stringify!($case))),+),+]
        };
    }

    fn source(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)).unwrap()
    }

    /// Every public case of the suite's modules: module, name, first paragraph of its docs.
    fn written() -> Vec<(String, String, String)> {
        let mut cases = Vec::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut docs = Vec::new();
            for line in source(&format!("conformance/{module}.rs")).lines() {
                if let Some(doc) = line.strip_prefix("///") {
                    docs.push(doc.trim().to_owned());
                    continue;
                }
                if let Some(rest) = line.strip_prefix("pub async fn ") {
                    let name = rest.split('(').next().unwrap().to_owned();
                    let first = docs.iter().take_while(|line| !line.is_empty());
                    let sentence = first.cloned().collect::<Vec<_>>().join(" ");
                    cases.push((module.clone(), name, sentence));
                }
                docs.clear();
            }
        }
        cases
    }

    /// The bullets under each `# Behaviour` of the contract.
    fn promised() -> BTreeSet<String> {
        let mut sentences = BTreeSet::new();
        let (mut inside, mut current) = (false, String::new());
        for line in source("registry.rs").lines() {
            let doc = line.trim_start().strip_prefix("///").map(str::trim);
            let bullet = doc.and_then(|doc| doc.strip_prefix("- "));
            let ends = bullet.is_some() || doc.is_none_or(str::is_empty);
            if ends && !current.is_empty() {
                sentences.insert(std::mem::take(&mut current));
            }
            match (doc, bullet) {
                (Some("# Behaviour"), _) => inside = true,
                (_, Some(bullet)) if inside => current.push_str(bullet),
                (Some(doc), None) if inside && !doc.is_empty() && !current.is_empty() => {
                    current = format!("{current} {doc}");
                }
                _ => inside = false,
            }
        }
        sentences
    }

    #[test]
    fn every_case_is_listed_and_every_listed_case_is_written() {
        let listed: BTreeSet<(String, String)> = crate::__conformance_cases! { [names] }
            .into_iter()
            .map(|(module, case)| (module.to_owned(), case.to_owned()))
            .collect();
        let written: BTreeSet<_> = written().into_iter().map(|(m, c, _)| (m, c)).collect();
        assert!(written.len() > 40, "the scan found only {written:?}");
        assert_eq!(listed, written);
    }

    #[test]
    fn each_sentence_of_the_contract_has_a_case_and_each_case_a_sentence() {
        let held: BTreeSet<String> = written().into_iter().map(|(_, _, s)| s).collect();
        let promised = promised();
        assert!(promised.len() > 30, "the scan found only {promised:?}");
        let unproven: Vec<_> = promised.difference(&held).collect();
        let unpromised: Vec<_> = held.difference(&promised).collect();
        assert!(
            unproven.is_empty(),
            "no case holds a backend to {unproven:#?}"
        );
        assert!(
            unpromised.is_empty(),
            "the contract does not say {unpromised:#?}"
        );
    }
}
