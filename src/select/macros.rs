//! The macro `select!`: a [`Select`](crate::Select) whose cases are in the program text.

/// Waits for the first of several sends, receives and events, and runs the arm of the one that happened.
///
/// | arm | happens | the arm gets |
/// |---|---|---|
/// | `recv(rx) -> message => …` | when a message can be received, or the channel is disconnected | `Result<T>`, as of [`Receiver::recv`](crate::Receiver::recv) |
/// | `send(tx, message) -> result => …` | when the message can be sent, or the channel is disconnected | `Result<()>`, as of [`Sender::send`](crate::Sender::send) |
/// | `ready(fd) => …` | when a descriptor, anything that is [`AsFd`](std::os::fd::AsFd), is readable or at its end | nothing |
/// | `default => …` | when nothing else can happen now; the `select!` then never blocks | nothing |
/// | `default(timeout) => …` | when nothing else could happen in that time, a [`Duration`](std::time::Duration) | nothing |
///
/// Without a `default` it blocks for as long as it takes. Exactly one arm runs. If several can, one of
/// them is chosen at random, so that none starves; a disconnected channel can always "happen", so a loop
/// should end or leave it out from then on. When other processes share a receiver and take its messages
/// first, it goes on waiting.
///
/// The channels and messages of all arms are evaluated once, from top to bottom, before anything happens. A
/// message that is given away is gone even if another arm runs; one that is borrowed (`send(tx, &message)`)
/// stays. An arm is an expression, and all have the same type; `break`, `continue`, `return` and `?` in it
/// work as in a `match`. If waiting itself fails, because the process may not wait for so many descriptors
/// (`RLIMIT_NOFILE`) or for want of memory, the [`Error::Io`](crate::Error::Io) goes to one of the `recv` or
/// `send` arms; an arm `ready` just runs.
///
/// For cases that are known only at run time there is [`Select`](crate::Select).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use wormhole::{Error, channel, select};
///
/// let (job, jobs) = channel::<u32>()?;
/// let (stop, stopped) = channel::<()>()?;
/// job.send(1)?;
/// job.send(2)?;
///
/// let mut sum = 0;
/// while sum < 3 {
///     select! {
///         recv(jobs) -> job => sum += job?,
///         recv(stopped) -> _ => break,
///     }
/// }
/// assert_eq!(sum, 3);
///
/// let late = select! {
///     recv(jobs) -> job => job,
///     default(Duration::from_millis(10)) => Err(Error::TimedOut),
/// };
/// assert!(matches!(late, Err(Error::TimedOut)));
///
/// drop(stop); // a closed channel is a signal that everybody sees
/// select! {
///     recv(jobs) -> job => panic!("{job:?}"),
///     recv(stopped) -> message => assert!(matches!(message, Err(Error::Disconnected))),
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// Without any arm there would be nothing to wait for:
///
/// ```compile_fail
/// wormhole::select! {}
/// ```
#[macro_export]
macro_rules! select {
    () => {
        $crate::__select!(@refuse "`select!` needs at least one arm")
    };
    ($($arms:tt)+) => {
        $crate::__select!(@head [] [] $($arms)+)
    };
}

/// The workings of `select!`.
///
/// It eats the arms one by one and keeps them as `(kind name (arguments) (pattern) (body))`, where `name` is a
/// variable, a different one for each arm by the hygiene of macros; then it writes the whole.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    (@refuse $message:literal) => {
        ::core::compile_error!($message)
    };

    // The head of an arm.
    (@head $arms:tt $default:tt recv($rx:expr $(,)?) -> $message:pat => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (recv name ($rx) ($message)) $($rest)+)
    };
    (@head $arms:tt $default:tt send($tx:expr, $value:expr $(,)?) -> $result:pat => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (send name ($tx, $value) ($result)) $($rest)+)
    };
    (@head $arms:tt $default:tt ready($fd:expr $(,)?) => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (ready name ($fd) ()) $($rest)+)
    };
    (@head $arms:tt [] default $(())? => $($rest:tt)+) => {
        $crate::__select!(@body $arms [] (default (::core::time::Duration::ZERO)) $($rest)+)
    };
    (@head $arms:tt [] default($timeout:expr $(,)?) => $($rest:tt)+) => {
        $crate::__select!(@body $arms [] (default ($timeout)) $($rest)+)
    };
    (@head $arms:tt [$($default:tt)+] default $($rest:tt)*) => {
        $crate::__select!(@refuse "`select!` takes one `default` at the most")
    };
    (@head $arms:tt $default:tt) => {
        $crate::__select!(@write $arms $default)
    };
    (@head $arms:tt $default:tt $($rest:tt)+) => {
        $crate::__select!(
            @refuse "an arm of `select!` is `recv(rx) -> message => …`, `send(tx, message) -> result => …`, \
                     `ready(fd) => …`, `default => …` or `default(timeout) => …`, and ends with a comma"
        )
    };

    // The body of an arm, whose comma may be left out after a block and at the end.
    (@body $arms:tt $default:tt $head:tt $body:block, $($rest:tt)*) => {
        $crate::__select!(@keep $arms $default $head ($body) $($rest)*)
    };
    (@body $arms:tt $default:tt $head:tt $body:block $($rest:tt)*) => {
        $crate::__select!(@keep $arms $default $head ($body) $($rest)*)
    };
    (@body $arms:tt $default:tt $head:tt $body:expr, $($rest:tt)*) => {
        $crate::__select!(@keep $arms $default $head ($body) $($rest)*)
    };
    (@body $arms:tt $default:tt $head:tt $body:expr) => {
        $crate::__select!(@keep $arms $default $head ($body))
    };
    (@keep $arms:tt $default:tt (default $timeout:tt) $body:tt $($rest:tt)*) => {
        $crate::__select!(@head $arms [$timeout $body] $($rest)*)
    };
    (@keep [$($arms:tt)*] $default:tt ($kind:ident $name:ident $arguments:tt $pattern:tt) $body:tt $($rest:tt)*) => {
        $crate::__select!(@head [$($arms)* ($kind $name $arguments $pattern $body)] $default $($rest)*)
    };

    // The whole: evaluate, wait, and run the arm that happened.
    (@write [$(($kind:ident $name:ident $arguments:tt $pattern:tt $body:tt))*] []) => {{
        $($crate::__select!(@evaluate $kind $name $arguments);)*
        let selected = {
            let mut select = $crate::Select::new();
            $($crate::__select!(@add select $kind $name $arguments);)*
            $crate::__private::decide(select, ::core::option::Option::None)
        };
        match selected {
            ::core::option::Option::Some(selected) => {
                $crate::__select!(@run selected (0) $(($kind $name $pattern $body))*)
            }
            ::core::option::Option::None => ::core::unreachable!("no deadline can have passed"),
        }
    }};
    (@write [$(($kind:ident $name:ident $arguments:tt $pattern:tt $body:tt))*] [($timeout:expr) ($default:expr)]) => {{
        $($crate::__select!(@evaluate $kind $name $arguments);)*
        let selected = {
            #[allow(unused_mut, reason = "there may be no arm but the default")]
            let mut select = $crate::Select::new();
            $($crate::__select!(@add select $kind $name $arguments);)*
            $crate::__private::decide(select, ::core::option::Option::Some($timeout))
        };
        match selected {
            ::core::option::Option::None => $default,
            ::core::option::Option::Some(selected) => {
                $crate::__select!(@run selected (0) $(($kind $name $pattern $body))*)
            }
        }
    }};

    (@evaluate recv $name:ident ($rx:expr)) => {
        let $name = &$rx;
        let $name: &$crate::Receiver<_> = $name;
    };
    (@evaluate send $name:ident ($tx:expr, $value:expr)) => {
        let $name = &$tx;
        let $name: &$crate::Sender<_> = $name;
    };
    (@evaluate ready $name:ident ($fd:expr)) => {
        let $name = &$fd;
    };

    (@add $select:ident recv $name:ident ($rx:expr)) => {
        $select.recv($name)
    };
    (@add $select:ident send $name:ident ($tx:expr, $value:expr)) => {
        $select.send($name, $value)
    };
    (@add $select:ident ready $name:ident ($fd:expr)) => {
        $select.ready($name)
    };

    // The last arm needs no question.
    (@run $selected:ident ($index:expr)) => {
        ::core::unreachable!("{:?}", $selected)
    };
    (@run $selected:ident ($index:expr) ($kind:ident $name:ident $pattern:tt $body:tt)) => {
        $crate::__select!(@arm $selected $kind $name $pattern $body)
    };
    (@run $selected:ident ($index:expr) ($kind:ident $name:ident $pattern:tt $body:tt) $($rest:tt)+) => {
        if $selected.index() == $index {
            $crate::__select!(@arm $selected $kind $name $pattern $body)
        } else {
            $crate::__select!(@run $selected ($index + 1) $($rest)+)
        }
    };
    (@arm $selected:ident recv $name:ident ($message:pat) ($body:expr)) => {
        match $selected.recv($name) {
            $message => $body,
        }
    };
    (@arm $selected:ident send $name:ident ($result:pat) ($body:expr)) => {
        match $selected.sent() {
            $result => $body,
        }
    };
    (@arm $selected:ident ready $name:ident () ($body:expr)) => {{
        ::core::mem::drop($selected);
        $body
    }};
}
