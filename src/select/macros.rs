//! The macro `select!`: a [`Select`](crate::Select) whose cases are in the program text.

/// Waits for the first of several sends, receives and events, and runs the arm of the one that happened.
///
/// | arm | happens | the arm gets |
/// |---|---|---|
/// | `recv(rx) -> message => …` | when a message can be received, or the channel is disconnected | `Result<T>`, as of [`Receiver::recv`](crate::Receiver::recv) |
/// | `send(tx, message) -> result => …` | when the message can be sent, or the channel is disconnected | `Result<()>`, as of [`Sender::send`](crate::Sender::send) |
/// | `closed(tx) => …` | when every copy of the receiver is gone | nothing |
/// | `ready(fd) => …` | when a descriptor, anything that is [`AsFd`](std::os::fd::AsFd), is readable or at its end | nothing |
/// | `writable(fd) => …` | when a descriptor is writable; of a sender see [`Select::writable`](crate::Select::writable) | nothing |
/// | `default => …` | when nothing else can happen now; the `select!` then never blocks | nothing |
/// | `default(timeout) => …` | when nothing else could happen in that time, a [`Duration`](std::time::Duration) | nothing |
///
/// Without a `default` it blocks for as long as it takes. Exactly one arm runs. If several can, one of
/// them is chosen at random, so that none starves; a disconnected channel can always "happen", so a loop
/// should end or switch that arm off from then on. When other receivers share a channel and take its messages
/// first, it looks at all arms again.
///
/// **An arm can be switched off** by a condition, `recv(rx) -> message, if open => …`, and by giving an [`Option`] of
/// an end or a descriptor that is `None`. If all arms are off and there is no `default`, it panics.
///
/// The arms are evaluated once, from top to bottom, before anything happens: of each the channel, the condition, and
/// the message, unless the arm is off. A message is gone even if another arm runs; to keep it, send it
/// [by reference](crate::Sender::by_ref). Temporaries, the guard of a lock for example, live until the arm has run. An
/// arm is an expression, and all have the same type; `break`, `continue`, `return` and `?` in it work as in a `match`.
/// If waiting itself fails, because the process may not wait for so many descriptors (`RLIMIT_NOFILE`) or for want of
/// memory, the [`Error::Io`](crate::Error::Io) goes to one of the `recv` or `send` arms; the other arms just run.
///
/// `default` means that the channels were looked at one after the other, from top to bottom, and none had anything.
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
///     default(Duration::from_millis(10)) => Err(Error::Empty),
/// };
/// assert!(matches!(late, Err(Error::Empty)));
///
/// drop(stop); // a closed channel is a signal to all receivers
/// select! {
///     recv(jobs) -> job => panic!("{job:?}"),
///     recv(stopped) -> message => assert!(matches!(message, Err(Error::Disconnected))),
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// A worker that stops when the client of its result has left, and takes further jobs only up to a bound:
///
/// ```
/// use std::collections::VecDeque;
/// use wormhole::{Error, channel, select};
///
/// let (job, jobs) = channel::<u32>()?;
/// let (result, results) = channel::<u32>()?;
/// (1..=4).try_for_each(|number| job.send(number))?;
/// drop(job);
///
/// let (mut backlog, mut open) = (VecDeque::new(), true);
/// while open || !backlog.is_empty() {
///     let next = backlog.front().map(|number| number * number);
///     select! {
///         recv(jobs) -> job, if open && backlog.len() < 2 => match job {
///             Ok(number) => backlog.push_back(number),
///             Err(_) => open = false,
///         },
///         send(result, next.unwrap()) -> sent, if next.is_some() => {
///             sent?;
///             backlog.pop_front();
///         }
///         closed(result) => break,
///     }
/// }
/// drop(result);
/// assert_eq!(results.iter().collect::<Result<Vec<_>, _>>()?, [1, 4, 9, 16]);
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
/// It eats the arms one by one and keeps them as `(kind name (arguments) (pattern) (condition) (body))`, where `name` is
/// a variable, a different one for each arm by the hygiene of macros. Then it writes the whole: a `match` for each arm
/// around those of the next ones, so that temporaries live long enough.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    (@refuse $message:literal) => {
        ::core::compile_error!($message)
    };

    // The head of an arm.
    (@head $arms:tt $default:tt recv($rx:expr $(,)?) -> $message:pat $(, if $on:expr)? => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (recv name ($rx) ($message) ($($on)?)) $($rest)+)
    };
    (@head $arms:tt $default:tt send($tx:expr, $value:expr $(,)?) -> $result:pat $(, if $on:expr)? => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (send name ($tx, $value) ($result) ($($on)?)) $($rest)+)
    };
    (@head $arms:tt $default:tt closed($tx:expr $(,)?) $(, if $on:expr)? => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (closed name ($tx) () ($($on)?)) $($rest)+)
    };
    (@head $arms:tt $default:tt ready($fd:expr $(,)?) $(, if $on:expr)? => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (ready name ($fd) () ($($on)?)) $($rest)+)
    };
    (@head $arms:tt $default:tt writable($fd:expr $(,)?) $(, if $on:expr)? => $($rest:tt)+) => {
        $crate::__select!(@body $arms $default (writable name ($fd) () ($($on)?)) $($rest)+)
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
                     `closed(tx) => …`, `ready(fd) => …`, `writable(fd) => …`, each perhaps with `, if condition` \
                     before the arrow, `default => …` or `default(timeout) => …`, and ends with a comma"
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
    (@keep [$($arms:tt)*] $default:tt ($($head:tt)+) $body:tt $($rest:tt)*) => {
        $crate::__select!(@head [$($arms)* ($($head)+ $body)] $default $($rest)*)
    };

    // The whole: evaluate, wait, and run the arm that happened.
    (@write $arms:tt $default:tt) => {{
        #[allow(unused_imports, reason = "there may be no arm of some kind")]
        use $crate::__private::{FdArm as _, OptionFdArm as _, RecvArm as _, SendArm as _};
        #[allow(unused_mut, reason = "there may be no arm but the default")]
        let mut select = $crate::Select::new();
        $crate::__select!(@evaluate select $arms $default $arms)
    }};

    (@evaluate $select:ident [(recv $name:ident ($rx:expr) $pattern:tt $on:tt $body:tt) $($more:tt)*] $default:tt $arms:tt) => {
        match &$rx {
            $name => {
                let $name = $crate::__select!(@only_if $on $name.__recv_arm());
                $crate::__private::add_recv(&mut $select, $name);
                $crate::__select!(@evaluate $select [$($more)*] $default $arms)
            }
        }
    };
    (@evaluate $select:ident [(send $name:ident ($tx:expr, $value:expr) $pattern:tt $on:tt $body:tt) $($more:tt)*] $default:tt $arms:tt) => {
        match &$tx {
            $name => {
                match $crate::__select!(@only_if $on $name.__send_arm()) {
                    ::core::option::Option::Some($name) => $select.send($name, $value),
                    ::core::option::Option::None => $crate::__private::off(&mut $select),
                };
                $crate::__select!(@evaluate $select [$($more)*] $default $arms)
            }
        }
    };
    (@evaluate $select:ident [(closed $name:ident ($tx:expr) $pattern:tt $on:tt $body:tt) $($more:tt)*] $default:tt $arms:tt) => {
        match &$tx {
            $name => {
                let $name = $crate::__select!(@only_if $on $name.__send_arm());
                $crate::__private::add_closed(&mut $select, $name);
                $crate::__select!(@evaluate $select [$($more)*] $default $arms)
            }
        }
    };
    (@evaluate $select:ident [(ready $name:ident ($fd:expr) $pattern:tt $on:tt $body:tt) $($more:tt)*] $default:tt $arms:tt) => {
        match &$fd {
            $name => {
                let $name = $crate::__select!(@only_if $on $name.__fd_arm());
                $crate::__private::add_ready(&mut $select, $name);
                $crate::__select!(@evaluate $select [$($more)*] $default $arms)
            }
        }
    };
    (@evaluate $select:ident [(writable $name:ident ($fd:expr) $pattern:tt $on:tt $body:tt) $($more:tt)*] $default:tt $arms:tt) => {
        match &$fd {
            $name => {
                let $name = $crate::__select!(@only_if $on $name.__fd_arm());
                $crate::__private::add_writable(&mut $select, $name);
                $crate::__select!(@evaluate $select [$($more)*] $default $arms)
            }
        }
    };
    (@evaluate $select:ident [] [] $arms:tt) => {
        match $crate::__private::decide($select, ::core::option::Option::None) {
            ::core::option::Option::Some(selected) => $crate::__select!(@run selected (0) $arms),
            ::core::option::Option::None => {
                ::core::panic!("all arms of `select!` are switched off, and it has no `default`")
            }
        }
    };
    (@evaluate $select:ident [] [($timeout:expr) ($default:expr)] $arms:tt) => {
        match $crate::__private::decide($select, ::core::option::Option::Some($timeout)) {
            ::core::option::Option::Some(selected) => $crate::__select!(@run selected (0) $arms),
            ::core::option::Option::None => $default,
        }
    };

    (@only_if () $end:expr) => {
        $end
    };
    (@only_if ($on:expr) $end:expr) => {{
        let end = $end;
        $crate::__private::only_if($on, end)
    }};

    // The last arm needs no question.
    (@run $selected:ident ($index:expr) []) => {
        ::core::unreachable!("{:?}", $selected)
    };
    (@run $selected:ident ($index:expr) [$arm:tt]) => {
        $crate::__select!(@arm $selected $arm)
    };
    (@run $selected:ident ($index:expr) [$arm:tt $($more:tt)+]) => {
        if $selected.index() == $index {
            $crate::__select!(@arm $selected $arm)
        } else {
            $crate::__select!(@run $selected ($index + 1) [$($more)+])
        }
    };
    (@arm $selected:ident (recv $name:ident $arguments:tt ($message:pat) $on:tt ($body:expr))) => {
        match $crate::__private::take_received($selected, $name) {
            $message => $body,
        }
    };
    (@arm $selected:ident (send $name:ident $arguments:tt ($result:pat) $on:tt ($body:expr))) => {
        match $selected.sent() {
            $result => $body,
        }
    };
    (@arm $selected:ident ($kind:ident $name:ident $arguments:tt () $on:tt ($body:expr))) => {{
        ::core::mem::drop($selected);
        $body
    }};
}
