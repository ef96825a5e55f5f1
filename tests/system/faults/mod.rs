//! Every system call that the library makes, failing with every error that it can fail with.
//!
//! A workload (`work.rs`) is one operation of the library. It runs in a process of its own under
//! `strace -e inject=`, which makes one call of it fail, and then checks what must hold after every error: no
//! descriptor is left over, and the next message arrives. What the operation must give is in a table
//! (`table.rs`), which has a line for each call that the operation makes: one that it lacks is a failure as
//! well.
//!
//! rustix makes system calls without the C library, so nothing that is preloaded would see them.

mod pools;
mod strace;
mod table;
mod work;

/// One test for each workload. Those of many calls, which are many processes, are left to `--ignored`.
macro_rules! faults {
    (always: [$($always:ident)*] long: [$($long:ident)*]) => {
        $(
            #[test]
            fn $always() {
                table::check(stringify!($always));
            }
        )*

        $(
            #[test]
            #[ignore = "takes minutes with its like: `cargo test --test system -- --ignored faults`"]
            fn $long() {
                table::check(stringify!($long));
            }
        )*

        #[test]
        fn every_workload_is_run() {
            let run = [$(stringify!($always),)* $(stringify!($long),)*];
            assert_eq!(std::collections::BTreeSet::from(run), table::names());
        }
    };
}

faults! {
    always: [
        create_a_channel
        create_a_channel_with_a_buffer
        drop_a_channel
        send
        send_without_waiting
        send_a_field
        send_beside
        send_undecoded
        send_to_a_full_channel
        send_beside_to_a_full_channel
        send_and_wait
        receive
        iterate
        receive_descriptors
        receive_descriptors_in_time
        receive_no_descriptors
        receive_fields
        receive_undecoded
        receive_garbage
        receive_nothing
        receive_the_end
        select_nothing
        select_a_closed_channel
        select_a_writable_descriptor
        give_up_a_descriptor
        compare_two_ends
        ask_for_the_other_side
        encode_without_a_channel
        decode_without_a_channel
        close_a_listener
        connect
        connect_within_a_time
        connect_with_a_buffer
        accept
        accept_nobody
        look_for_a_client
        child_of_a_spawn
        join_a_child
        kill_a_child
    ]
    long: [
        send_a_listener
        send_long
        send_longer_than_the_buffer
        receive_a_listener
        receive_long
        select_a_receive
        select_a_send
        select_in_the_program_text
        receive_from_a_set
        receive_descriptors_from_a_set
        receive_nothing_from_a_set
        adopt_a_descriptor
        adopt_a_listener
        bind
        bind_over_a_stale_file
        make_a_blob
        build_a_blob
        read_a_blob
        seal_a_blob
        receive_a_blob
        spawn_a_child
        spawn_a_fresh_child
        start_a_pool
        job_of_a_pool
        child_of_a_pool
        death_in_a_pool
        cancel_in_a_pool
        start_a_program
        inherit_arguments
    ]
}
