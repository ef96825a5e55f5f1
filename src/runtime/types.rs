//! The public types, once for all event loops.

/// Defines the ends of a module: of its [`Reactor`](super::Reactor), with the lines before and after each example.
macro_rules! runtime_types {
    ($Reactor:ty, $open:literal, $close:literal) => {
        use std::fmt;
        use std::os::fd::{BorrowedFd, OwnedFd};
        use std::sync::Arc;

        use futures_core::{FusedStream, Stream};
        use serde::Serialize;
        use serde::de::DeserializeOwned;

        #[cfg(doc)]
        use crate::error::Error;
        use crate::error::Result;
        use crate::runtime::{Readable, Writable, unless_disconnected};
        use crate::sys::peer::Peer;

        /// The receiving end of a channel, awaited.
        ///
        /// Clones share the work and one registration: each message reaches one of the tasks that wait. The end is
        /// closed when the last clone is dropped.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $open]
        /// let (tx, rx) = wormhole::channel::<u32>()?;
        /// let rx = Receiver::new(rx)?;
        /// tx.send(5)?; // usually in another process
        /// assert_eq!(rx.recv().await?, 5);
        ///
        /// drop(tx);
        /// assert!(matches!(rx.recv().await, Err(wormhole::Error::Disconnected)));
        #[doc = $close]
        /// ```
        pub struct Receiver<T> {
            receiver: crate::channel::Receiver<T>,
            readable: Arc<Readable<$Reactor>>,
        }

        impl<T> Receiver<T> {
            /// Registers a receiver with the event loop. Never blocks.
            ///
            /// While a clone is registered by itself, this takes a descriptor more.
            ///
            /// # Errors
            ///
            /// [`Error::Io`] when this is not called in a runtime (of those that have to be entered), or when the
            /// kernel refuses, for want of memory or descriptors.
            pub fn new(receiver: crate::channel::Receiver<T>) -> Result<Self> {
                let readable = Arc::new(Readable::of_socket(receiver.endpoint().socket())?);
                Ok(Receiver { receiver, readable })
            }

            /// Gives the end back. The registration ends with the last clone.
            #[must_use]
            pub fn into_inner(self) -> crate::channel::Receiver<T> {
                self.receiver
            }

            /// The end itself.
            #[must_use]
            pub fn get_ref(&self) -> &crate::channel::Receiver<T> {
                &self.receiver
            }
        }

        impl<T: DeserializeOwned> Receiver<T> {
            /// Receives the next message, as [`crate::Receiver::recv`] does.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no message has been taken.
            ///
            /// # Errors
            ///
            /// As [`crate::Receiver::recv`]; [`Error::Io`] also when the event loop has ended.
            pub async fn recv(&self) -> Result<T> {
                let spin = self.receiver.endpoint().socket().spin();
                let attempt = || self.receiver.try_recv();
                self.readable.receive(Some(spin), attempt).await
            }

            /// Receives the next message and the descriptors beside it, as [`crate::Receiver::recv_with_fds`] does.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no message and no descriptor has been taken.
            ///
            /// # Errors
            ///
            /// As [`crate::Receiver::recv_with_fds`]; [`Error::Io`] also when the event loop has ended.
            pub async fn recv_with_fds(&self) -> Result<(T, Vec<OwnedFd>)> {
                let spin = self.receiver.endpoint().socket().spin();
                let attempt = || self.receiver.try_recv_with_fds();
                self.readable.receive(Some(spin), attempt).await
            }

            /// Receives a message if one is waiting. Never blocks.
            ///
            /// # Errors
            ///
            /// [`Error::Empty`] when none is waiting, otherwise as [`crate::Receiver::recv`].
            pub fn try_recv(&self) -> Result<T> {
                self.receiver.try_recv()
            }

            /// Makes a stream of the messages, which ends when the channel is disconnected. Every other error is an
            /// item.
            ///
            /// To take a message from it is cancel safe.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = $open]
            /// use futures_util::TryStreamExt;
            ///
            /// let (tx, rx) = wormhole::channel::<u32>()?;
            /// for number in [1, 2, 3] {
            ///     tx.send(number)?;
            /// }
            /// drop(tx);
            /// let numbers: Vec<u32> = Receiver::new(rx)?.into_stream().try_collect().await?;
            /// assert_eq!(numbers, [1, 2, 3]);
            #[doc = $close]
            /// ```
            pub fn into_stream(self) -> Messages<T> {
                Messages {
                    receiver: self,
                    waiting: None,
                    is_over: false,
                }
            }
        }

        impl<T> Clone for Receiver<T> {
            fn clone(&self) -> Self {
                Receiver {
                    receiver: self.receiver.clone(),
                    readable: Arc::clone(&self.readable),
                }
            }
        }

        impl<T> fmt::Debug for Receiver<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("Receiver").field(&self.receiver).finish()
            }
        }

        /// The messages of a channel, as a stream: [`Receiver::into_stream`].
        pub struct Messages<T> {
            receiver: Receiver<T>,
            /// A receive that has begun to wait.
            waiting: Option<Pin<Box<dyn Future<Output = Result<T>> + Send>>>,
            is_over: bool,
        }

        impl<T> Messages<T> {
            /// Gives the receiver back. No message is lost.
            #[must_use]
            pub fn into_inner(self) -> Receiver<T> {
                self.receiver
            }
        }

        impl<T: DeserializeOwned + Send + 'static> Stream for Messages<T> {
            type Item = Result<T>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Result<T>>> {
                if self.is_over {
                    return Poll::Ready(None);
                }
                let mut waiting = match self.waiting.take() {
                    Some(waiting) => waiting,
                    None => {
                        // What has come already costs no allocation.
                        std::task::ready!(<$Reactor>::poll_budget(context));
                        match self.receiver.try_recv() {
                            Err(crate::error::Error::Empty) => {}
                            received => {
                                let received = unless_disconnected(received);
                                self.is_over = received.is_none();
                                return Poll::Ready(received);
                            }
                        }
                        let receiver = self.receiver.clone();
                        Box::pin(async move { receiver.recv().await })
                    }
                };
                match waiting.as_mut().poll(context) {
                    Poll::Ready(received) => {
                        let received = unless_disconnected(received);
                        self.is_over = received.is_none();
                        Poll::Ready(received)
                    }
                    Poll::Pending => {
                        self.waiting = Some(waiting);
                        Poll::Pending
                    }
                }
            }
        }

        impl<T: DeserializeOwned + Send + 'static> FusedStream for Messages<T> {
            fn is_terminated(&self) -> bool {
                self.is_over
            }
        }

        impl<T> fmt::Debug for Messages<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("Messages").field(&self.receiver).finish()
            }
        }

        /// The sending end of a channel, awaited.
        ///
        /// Clones share one registration. The end is closed when the last one is dropped.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $open]
        /// let (tx, rx) = wormhole::channel::<u32>()?;
        /// let tx = Sender::new(tx)?;
        /// tx.send(5).await?;
        /// assert_eq!(rx.recv()?, 5); // usually in another process
        ///
        /// drop(rx);
        /// assert!(matches!(tx.send(6).await, Err(wormhole::Error::Disconnected)));
        #[doc = $close]
        /// ```
        pub struct Sender<T> {
            sender: crate::channel::Sender<T>,
            writable: Arc<Writable<$Reactor>>,
        }

        impl<T> Sender<T> {
            /// Registers a sender with the event loop. Never blocks.
            ///
            /// While a clone is registered by itself, this takes a descriptor more.
            ///
            /// # Errors
            ///
            /// [`Error::Io`] when this is not called in a runtime (of those that have to be entered), or when the
            /// kernel refuses, for want of memory or descriptors.
            pub fn new(sender: crate::channel::Sender<T>) -> Result<Self> {
                let writable = Arc::new(Writable::of_socket(sender.endpoint().socket())?);
                Ok(Sender { sender, writable })
            }

            /// Gives the end back. The registration ends with the last clone.
            #[must_use]
            pub fn into_inner(self) -> crate::channel::Sender<T> {
                self.sender
            }

            /// The end itself.
            #[must_use]
            pub fn get_ref(&self) -> &crate::channel::Sender<T> {
                &self.sender
            }

            /// Makes a sender of the same channel that sends borrowed messages, as [`crate::Sender::by_ref`] does.
            #[must_use]
            pub fn by_ref<'a>(&self) -> Sender<&'a T>
            where
                T: 'a,
            {
                Sender {
                    sender: self.sender.by_ref(),
                    writable: Arc::clone(&self.writable),
                }
            }

            /// Waits until every copy of the receiver, in every process, is gone: nothing that is sent can arrive.
            ///
            /// For a server that works for a client, to stop when the client has left. The first call takes a
            /// descriptor, which the clones share.
            ///
            /// # Cancel safety
            ///
            /// The future can be dropped and made anew without harm.
            ///
            /// # Errors
            ///
            /// [`Error::Io`] when the process is out of descriptors, or the event loop has ended.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = $open]
            /// let (tx, rx) = wormhole::channel::<u32>()?;
            /// let tx = Sender::new(tx)?;
            /// let client = std::thread::spawn(move || rx.recv()); // takes one message, and leaves
            /// tx.send(1).await?;
            /// tx.closed().await?;
            /// assert!(matches!(tx.send(2).await, Err(wormhole::Error::Disconnected)));
            /// assert_eq!(client.join().unwrap()?, 1);
            #[doc = $close]
            /// ```
            pub async fn closed(&self) -> Result<()> {
                self.writable.closed(self.sender.endpoint().socket()).await
            }
        }

        impl<T> Sender<T> {
            /// Connects to the [`Listener`](crate::Listener) at a path, or at an abstract name, as
            /// [`crate::Sender::connect`] does, and registers the sender with the event loop.
            ///
            /// Waits only while the queue of clients that are to be accepted is full. The kernel does not tell when there is
            /// room in it again, so this looks for itself: after 1, 2, 4 ... 64 ms. With
            /// [`Options`](crate::Options) other than the defaults, connect with these and give the sender to
            /// [`new`](Self::new): that blocks while the queue is full.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, it was not connected, and the listener has not noticed.
            ///
            /// # Errors
            ///
            /// As [`crate::Sender::connect`], and as [`new`](Self::new).
            ///
            /// # Examples
            ///
            /// ```
            #[doc = $open]
            /// let name = format!("\0wormhole {}", std::process::id());
            /// let error = Sender::<u32>::connect(&name).await.unwrap_err();
            /// assert!(matches!(error, wormhole::Error::Address { .. }));
            ///
            /// let listener = Listener::new(wormhole::Listener::<u32>::bind(&name)?)?;
            /// let tx = Sender::connect(&name).await?;
            /// tx.send(5).await?;
            /// assert_eq!(listener.accept().await?.0.recv().await?, 5);
            #[doc = $close]
            /// ```
            pub async fn connect(path: impl AsRef<std::path::Path>) -> Result<Self> {
                Self::new(crate::runtime::connect::<$Reactor, T>(path.as_ref()).await?)
            }
        }

        impl<T: Serialize> Sender<T> {
            /// Sends a message, as [`crate::Sender::send`] does, waiting while the channel is full.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, nothing has been sent, and the message is dropped. To
            /// still have it, send it by reference: see [`by_ref`](Self::by_ref).
            ///
            /// Those that wait have no order among them: a later message of another task may be sent earlier.
            ///
            /// # Errors
            ///
            /// As [`crate::Sender::send`]; [`Error::Io`] also when the event loop has ended. The message was not
            /// sent.
            pub async fn send(&self, message: T) -> Result<()> {
                self.writable.send(&self.sender, message, &[]).await
            }

            /// Sends a message and duplicates of `fds` beside it, as [`crate::Sender::send_with_fds`] does.
            ///
            /// # Cancel safety
            ///
            /// As [`send`](Self::send). The descriptors stay open here in any case.
            ///
            /// # Errors
            ///
            /// As [`crate::Sender::send_with_fds`]; [`Error::Io`] also when the event loop has ended.
            pub async fn send_with_fds(&self, message: T, fds: &[BorrowedFd<'_>]) -> Result<()> {
                self.writable.send(&self.sender, message, fds).await
            }

            /// Sends a message if the channel has room for it now. Never blocks.
            ///
            /// # Errors
            ///
            /// [`Error::Full`] when there is no room, otherwise as [`crate::Sender::send`].
            pub fn try_send(&self, message: T) -> Result<()> {
                self.sender.try_send(message)
            }
        }

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                Sender {
                    sender: self.sender.clone(),
                    writable: Arc::clone(&self.writable),
                }
            }
        }

        impl<T> fmt::Debug for Sender<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("Sender").field(&self.sender).finish()
            }
        }

        /// A [`Listener`](crate::Listener) whose clients are awaited.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $open]
        /// let name = format!("\0wormhole {}", std::process::id());
        /// let listener = Listener::new(wormhole::Listener::<u32>::bind(&name)?)?;
        /// wormhole::Sender::connect(&name)?.send(5)?; // usually in another process
        /// let (rx, peer) = listener.accept().await?;
        /// assert_eq!(peer.pid, Some(std::process::id()));
        /// assert_eq!(rx.recv().await?, 5);
        #[doc = $close]
        /// ```
        pub struct Listener<T> {
            listener: crate::listener::Listener<T>,
            readable: Arc<Readable<$Reactor>>,
        }

        impl<T> Listener<T> {
            /// Registers a listener with the event loop. Never blocks.
            ///
            /// # Errors
            ///
            /// As [`Receiver::new`].
            pub fn new(listener: crate::listener::Listener<T>) -> Result<Self> {
                let readable = Arc::new(Readable::of_socket(listener.socket())?);
                Ok(Listener { listener, readable })
            }

            /// Gives the listener back. The registration ends with the last clone.
            #[must_use]
            pub fn into_inner(self) -> crate::listener::Listener<T> {
                self.listener
            }

            /// The listener itself.
            #[must_use]
            pub fn get_ref(&self) -> &crate::listener::Listener<T> {
                &self.listener
            }

            /// Accepts the next client, as [`crate::Listener::accept`] does.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no client has been accepted.
            ///
            /// # Errors
            ///
            /// As [`crate::Listener::accept`]; [`Error::Io`] also when the event loop has ended, or when the client
            /// could not be registered with it, which is then disconnected.
            pub async fn accept(&self) -> Result<(Receiver<T>, Peer)> {
                let accepted = self
                    .readable
                    .receive(None, || self.listener.try_accept())
                    .await;
                let (receiver, peer) = accepted?;
                Ok((Receiver::new(receiver)?, peer))
            }
        }

        impl<T> Clone for Listener<T> {
            fn clone(&self) -> Self {
                Listener {
                    listener: self.listener.clone(),
                    readable: Arc::clone(&self.readable),
                }
            }
        }

        impl<T> fmt::Debug for Listener<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("Listener").field(&self.listener).finish()
            }
        }

        /// A [`ReceiverSet`](crate::ReceiverSet) whose messages are awaited: thousands of receivers, one registration
        /// and one task.
        ///
        /// For a few receivers, a task for each is simpler.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $open]
        /// let mut set = ReceiverSet::new(wormhole::ReceiverSet::new()?)?;
        /// let (tx, rx) = wormhole::channel::<u32>()?;
        /// let key = set.get_mut().add(rx)?;
        /// tx.send(5)?;
        /// let (from, message) = set.recv().await?;
        /// assert_eq!((from, message?), (key, 5));
        #[doc = $close]
        /// ```
        pub struct ReceiverSet<T> {
            set: crate::select::ReceiverSet<T>,
            readable: Readable<$Reactor>,
        }

        impl<T> ReceiverSet<T> {
            /// Registers a set with the event loop, which takes a descriptor more. Never blocks.
            ///
            /// # Errors
            ///
            /// As [`Receiver::new`].
            pub fn new(set: crate::select::ReceiverSet<T>) -> Result<Self> {
                let readable = Readable::of_fd(std::os::fd::AsFd::as_fd(&set))?;
                Ok(ReceiverSet { set, readable })
            }

            /// Gives the set back.
            #[must_use]
            pub fn into_inner(self) -> crate::select::ReceiverSet<T> {
                self.set
            }

            /// The set itself.
            #[must_use]
            pub fn get_ref(&self) -> &crate::select::ReceiverSet<T> {
                &self.set
            }

            /// The set itself, to add and to remove receivers.
            pub fn get_mut(&mut self) -> &mut crate::select::ReceiverSet<T> {
                &mut self.set
            }
        }

        impl<T: DeserializeOwned> ReceiverSet<T> {
            /// Receives the next message of any receiver, as [`crate::ReceiverSet::recv`] does.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no message has been taken and no receiver removed.
            ///
            /// # Errors
            ///
            /// As [`crate::ReceiverSet::recv`]; [`Error::Io`] also when the event loop has ended.
            pub async fn recv(&mut self) -> Result<(crate::select::Key, Result<T>)> {
                let attempt = || self.set.try_recv();
                self.readable.receive(None, attempt).await
            }
        }

        impl<T> fmt::Debug for ReceiverSet<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("ReceiverSet").field(&self.set).finish()
            }
        }

        /// A [`Child`](crate::Child) whose end is awaited.
        ///
        /// Dropping it leaves the process running.
        pub struct Child<R> {
            child: crate::process::Child<R>,
            readable: Readable<$Reactor>,
        }

        impl<R> Child<R> {
            /// Registers a child with the event loop, which takes a descriptor more. Never blocks.
            ///
            /// # Errors
            ///
            /// As [`Receiver::new`].
            pub fn new(child: crate::process::Child<R>) -> Result<Self> {
                let readable = Readable::of_fd(std::os::fd::AsFd::as_fd(&child))?;
                Ok(Child { child, readable })
            }

            /// Gives the child back.
            pub fn into_inner(self) -> crate::process::Child<R> {
                self.child
            }

            /// The child itself, for its process id or to kill it.
            pub fn get_ref(&self) -> &crate::process::Child<R> {
                &self.child
            }
        }

        impl<R: DeserializeOwned> Child<R> {
            /// Waits until the child has ended, and returns what its function returned, as [`crate::Child::join`]
            /// does.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, the result is still there to be joined.
            ///
            /// # Errors
            ///
            /// As [`crate::Child::join`]; [`Error::Io`] also when the event loop has ended.
            pub async fn join(&mut self) -> Result<R> {
                let attempt = || match self.child.try_join() {
                    Ok(None) => Err(crate::error::Error::Empty),
                    Ok(Some(result)) => Ok(result),
                    Err(error) => Err(error),
                };
                self.readable.receive(None, attempt).await
            }
        }

        impl<R> fmt::Debug for Child<R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("Child").field(&self.child).finish()
            }
        }

        /// A [`Pool`](crate::Pool) whose workers and results are awaited.
        ///
        /// # Examples
        ///
        /// ```no_run
        #[doc = $open]
        /// fn square(number: u64) -> u64 {
        ///     number * number
        /// }
        ///
        /// let mut pool = Pool::new(wormhole::Pool::new(4, square)?)?; // forked before there are threads
        /// for number in 0..100 {
        ///     pool.submit(number).await?; // waits for a worker, and keeps the results that come meanwhile
        /// }
        /// let mut sum = 0;
        /// while let Ok((_, result)) = pool.recv().await {
        ///     sum += result.unwrap();
        /// }
        /// assert_eq!(sum, 328_350);
        #[doc = $close]
        /// ```
        pub struct Pool<J, R> {
            pool: crate::process::Pool<J, R>,
            readable: Readable<$Reactor>,
        }

        impl<J, R> Pool<J, R> {
            /// Registers a pool with the event loop, which takes a descriptor more. Never blocks.
            ///
            /// # Errors
            ///
            /// As [`Receiver::new`].
            pub fn new(pool: crate::process::Pool<J, R>) -> Result<Self> {
                let readable = Readable::of_fd(std::os::fd::AsFd::as_fd(&pool))?;
                Ok(Pool { pool, readable })
            }

            /// Gives the pool back.
            #[must_use]
            pub fn into_inner(self) -> crate::process::Pool<J, R> {
                self.pool
            }

            /// The pool itself.
            #[must_use]
            pub fn get_ref(&self) -> &crate::process::Pool<J, R> {
                &self.pool
            }

            /// The pool itself, to cancel jobs, and to submit them without waiting.
            pub fn get_mut(&mut self) -> &mut crate::process::Pool<J, R> {
                &mut self.pool
            }
        }

        impl<J, R> Pool<J, R>
        where
            J: Serialize + DeserializeOwned,
            R: Serialize + DeserializeOwned,
        {
            /// Gives a job to a worker, waiting for one, and returns its id, as [`crate::Pool::submit`] does.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no worker has been given the job, and it is dropped. To still
            /// have it, use [`submit_ref`](Self::submit_ref).
            ///
            /// # Errors
            ///
            /// As [`crate::Pool::submit`]; [`Error::Io`] also when the event loop has ended.
            pub async fn submit(&mut self, job: J) -> Result<crate::process::JobId> {
                let mut submission = self.pool.submission();
                let attempt = move || submission.attempt(&job);
                self.readable.receive(None, attempt).await
            }

            /// As [`submit`](Self::submit) and leaves the job to the caller, for whom it is there if the future is dropped,
            /// or fails.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no worker has been given the job.
            ///
            /// # Errors
            ///
            /// As [`submit`](Self::submit).
            pub async fn submit_ref(&mut self, job: &J) -> Result<crate::process::JobId> {
                let mut submission = self.pool.submission();
                let attempt = || submission.attempt(job);
                self.readable.receive(None, attempt).await
            }

            /// Waits for the next outcome of any job, as [`crate::Pool::recv`] does.
            ///
            /// The pool has no threads: its deadlines are kept, and its workers replaced, while this is awaited.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, no outcome has been taken.
            ///
            /// # Errors
            ///
            /// As [`crate::Pool::recv`]; [`Error::Io`] also when the event loop has ended.
            pub async fn recv(
                &mut self,
            ) -> Result<(crate::process::JobId, Result<R, crate::process::JobError>)> {
                let attempt = || self.pool.try_recv();
                self.readable.receive(None, attempt).await
            }
        }

        impl<J, R> fmt::Debug for Pool<J, R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple("Pool").field(&self.pool).finish()
            }
        }
    };
}

pub(crate) use runtime_types;
