//! The inboxes of a queue that no call uses: what a dropped call leaves to the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::answer::Arrived;
use crate::ask::{Ask, Came, withdraw};
use crate::error::{Error, Result};
use crate::link::{Link, PAUSE};

/// For so long a request is kept whose call was dropped, for the next one to go on with.
const KEEP: Duration = Duration::from_millis(100);

pub(crate) const OPERATION: &str = "receive from";

/// Inboxes that no call uses now. All receivers of a queue in this process share them.
#[derive(Debug)]
pub(crate) struct Inboxes {
    pub(crate) link: Arc<Link>,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Without a request.
    asks: Vec<Ask>,
    /// With one that goes on, and since when.
    open: Vec<(Ask, Instant)>,
    /// Whether a task looks after those.
    is_watched: bool,
}

impl Inboxes {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let idle = Mutex::default();
        Inboxes { link, idle }
    }

    /// Waits for a job.
    pub(crate) async fn next(self: &Arc<Self>) -> Result<Arrived> {
        let mut held = Held::take(self);
        loop {
            if let Step::Job(arrived) = held.step(true).await? {
                return Ok(*arrived);
            }
        }
    }

    /// Asks for a job that is there already.
    pub(crate) async fn look(self: &Arc<Self>) -> Result<Arrived> {
        if let Some(waiting) = self.waiting() {
            return Ok(waiting);
        }
        let mut held = Held::take_idle(self);
        loop {
            match held.step(false).await? {
                Step::Job(arrived) => return Ok(*arrived),
                Step::None => {
                    // Nothing may be left because it went to a request that a dropped call has made.
                    let waiting = self.waiting();
                    let place = || self.link.place();
                    return waiting.ok_or_else(|| Error::Empty { place: place() });
                }
                Step::Again => {}
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job that came for a call which was dropped.
    fn waiting(&self) -> Option<Arrived> {
        let mut idle = self.idle();
        let mut jobs = idle.open.iter_mut().enumerate();
        let (index, job) = jobs.find_map(|(index, (ask, _))| {
            let job = ask.waiting(&self.link)?;
            Some((index, job))
        })?;
        let (ask, _) = idle.open.swap_remove(index);
        idle.asks.push(ask);
        Some(job)
    }

    /// Keeps an inbox for the next call, with its request for a while.
    fn park(self: &Arc<Self>, ask: Ask) {
        let mut idle = self.idle();
        if !ask.is_open {
            idle.asks.push(ask);
            return;
        }
        idle.open.push((ask, Instant::now()));
        if !idle.is_watched {
            idle.is_watched = true;
            self.link.runtime.spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Withdraws the requests of dropped calls, and waits until the server has heard that, and what else it has to hear.
    pub(crate) async fn told(&self) {
        let open = self.idle().open.drain(..).map(|(ask, _)| ask).collect();
        self.link.withdraw(open);
        self.link.told().await;
    }

    /// Withdraws the requests if one of them was kept long enough, and says whether there are others.
    fn withdraw_old(&self) -> bool {
        let mut idle = self.idle();
        if idle.open.iter().any(|(_, since)| since.elapsed() >= KEEP) {
            let open = idle.open.drain(..).map(|(ask, _)| ask);
            self.link.withdraw(open.collect());
        }
        idle.is_watched = !idle.open.is_empty();
        idle.is_watched
    }
}

async fn watch(inboxes: Weak<Inboxes>) {
    loop {
        sleep(KEEP).await;
        match inboxes.upgrade() {
            Some(inboxes) if inboxes.withdraw_old() => {}
            _ => return,
        }
    }
}

impl Drop for Inboxes {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        let open = idle.open.drain(..).map(|(ask, _)| ask);
        self.link.withdraw(open.collect());
    }
}

impl Link {
    /// Withdraws requests, by a task of the runtime.
    fn withdraw(&self, asks: Vec<Ask>) {
        if asks.is_empty() {
            return;
        }
        let (client, name) = (self.client.clone(), Arc::clone(&self.name));
        self.tell(async move { withdraw(client, &name, asks).await });
    }
}

/// An inbox that a call uses. It goes back when the call is over, or dropped.
struct Held<'a> {
    inboxes: &'a Arc<Inboxes>,
    ask: Option<Ask>,
}

/// What a request came to.
enum Step {
    Job(Box<Arrived>),
    /// No job is there.
    None,
    Again,
}

impl<'a> Held<'a> {
    /// Takes one with an open request, if there is any.
    fn take(inboxes: &'a Arc<Inboxes>) -> Self {
        let mut idle = inboxes.idle();
        let open = idle.open.pop().map(|(ask, _)| ask);
        let ask = open.or_else(|| idle.asks.pop());
        Held { inboxes, ask }
    }

    fn take_idle(inboxes: &'a Arc<Inboxes>) -> Self {
        let ask = inboxes.idle().asks.pop();
        Held { inboxes, ask }
    }

    /// Makes a request, unless one is open, and waits for what it comes to.
    async fn step(&mut self, waits: bool) -> Result<Step> {
        let link = &self.inboxes.link;
        link.connected().await?;
        let ask = match &mut self.ask {
            Some(ask) => ask,
            none => none.insert(Ask::new(link).await?),
        };
        if !ask.is_open {
            ask.request(link, waits).await?;
        }
        match ask.came(link).await {
            Came::Job(arrived) => return Ok(Step::Job(arrived)),
            Came::Over => return Ok(Step::None),
            Came::Busy => sleep(PAUSE).await,
            Came::Gone => {
                link.check_alive(OPERATION).await?;
                sleep(PAUSE).await;
            }
            Came::Refused(reason) => return Err(Error::server(link.place(), OPERATION, reason)),
            Came::Lost => {
                if let Some(ask) = self.ask.take() {
                    link.withdraw(vec![ask]);
                }
                link.check_alive(OPERATION).await?;
            }
            Came::Closed => {
                self.ask = None;
                return Err(link.closed());
            }
        }
        Ok(Step::Again)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(ask) = self.ask.take() {
            self.inboxes.park(ask);
        }
    }
}
