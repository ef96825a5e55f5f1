//! Messages of several types. Each has a mirror: a type of the same text that holds an index wherever the
//! message holds a descriptor, and that knows nothing of wormhole.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::fstat;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use wormhole::{Blob, Receiver, Sender};

use crate::files::Kind;

/// Device and inode number: which file a descriptor is.
pub type Inode = (u64, u64);

pub fn inode(fd: impl AsFd) -> Inode {
    let stat = fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// What a field takes.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    Anything,
    End,
    Blob,
}

pub type Wants = Vec<(Option<u64>, Want)>;

/// A type of messages that the targets receive.
pub trait Message: Serialize + DeserializeOwned + fmt::Debug {
    type Mirror: DeserializeOwned;

    /// A message that is right, and what belongs beside it.
    const GOOD: (&'static str, &'static [Kind]);

    /// The fields of a message that take descriptors: index and kind. `None`: no index at all.
    fn wants(mirror: &Self::Mirror, wants: &mut Wants);

    /// The files that the message holds, in the order of `wants`.
    fn holds(&self, files: &mut Vec<Inode>);

    /// Whether the values without descriptors are the same.
    fn is_like(&self, mirror: &Self::Mirror) -> bool;
}

macro_rules! plain {
    ($($type:ty: $good:literal),* $(,)?) => { $(
        impl Message for $type {
            type Mirror = Self;
            const GOOD: (&'static str, &'static [Kind]) = ($good, &[]);
            fn wants(_: &Self, _: &mut Wants) {}
            fn holds(&self, _: &mut Vec<Inode>) {}
            fn is_like(&self, mirror: &Self) -> bool {
                // Equal texts: bits of floats included, of which none is NaN.
                serde_json::to_string(self).unwrap() == serde_json::to_string(mirror).unwrap()
            }
        }
    )* };
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    id: u32,
    name: String,
    price: f64,
    #[serde(default)]
    tags: Vec<Option<char>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Shape {
    Point,
    Circle(f32),
    Line { from: (i8, i8), to: (i128, u128) },
    Group(BTreeMap<u16, Shape>),
}

plain! {
    u32: "7",
    String: "\"seven\"",
    Vec<u8>: "[7]",
    (f64, i64, bool): "[7.5,-7,true]",
    Option<BTreeMap<String, ()>>: "{\"a\":null}",
    Order: "{\"id\":7,\"name\":\"seven\",\"price\":0.7}",
    Shape: "{\"Group\":{\"7\":{\"Circle\":1.5},\"8\":\"Point\"}}",
    serde_json::Value: "{\"a\":[1,2.5,null]}",
    (): "null",
}

/// The mirror of a descriptor: a number, which is an index only if it is written with digits alone.
#[derive(Debug)]
pub struct Index(Option<u64>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Index(
            serde_json::Number::deserialize(deserializer)?.as_u64(),
        ))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Fd(#[serde(with = "wormhole::fd")] pub OwnedFd);

impl Message for Fd {
    type Mirror = Index;
    const GOOD: (&'static str, &'static [Kind]) = ("0", &[Kind::Null]);
    fn wants(mirror: &Index, wants: &mut Wants) {
        wants.push((mirror.0, Want::Anything));
    }
    fn holds(&self, files: &mut Vec<Inode>) {
        files.push(inode(&self.0));
    }
    fn is_like(&self, _: &Index) -> bool {
        true
    }
}

macro_rules! special {
    ($($type:ty: $kind:ident, $want:ident, $fd:expr;)*) => { $(
        impl Message for $type {
            type Mirror = Index;
            const GOOD: (&'static str, &'static [Kind]) = ("0", &[Kind::$kind]);
            fn wants(mirror: &Index, wants: &mut Wants) {
                wants.push((mirror.0, Want::$want));
            }
            fn holds(&self, files: &mut Vec<Inode>) {
                let fd: fn(&$type) -> Inode = $fd;
                files.push(fd(self));
            }
            fn is_like(&self, _: &Index) -> bool {
                true
            }
        }
    )* };
}

special! {
    Sender<u8>: End, End, |end| inode(end);
    Receiver<String>: End, End, |end| inode(end);
    Blob: Blob, Blob, |blob| inode(blob);
}

/// A map in which the mirror also counts the keys that come twice, whose descriptors are taken as well.
#[derive(Debug)]
pub struct Pairs(Vec<(String, Index)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All(PhantomData<Pairs>);

        impl<'de> Visitor<'de> for All {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(All(PhantomData))
    }
}

impl Pairs {
    /// What a map holds in the end: the last of each key.
    fn is_last(&self, place: usize) -> bool {
        let key = &self.0[place].0;
        self.0[place + 1..].iter().all(|(later, _)| later != key)
    }
}

/// Descriptors in every place where a struct can have one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    name: String,
    #[serde(with = "wormhole::fd")]
    input: OwnedFd,
    reply: Sender<u32>,
    #[serde(default)]
    more: Vec<Fd>,
    log: Option<Fd>,
    jobs: Option<Receiver<Job>>,
    data: Option<Blob>,
    #[serde(default)]
    by_name: BTreeMap<String, Fd>,
}

#[derive(Debug, Deserialize)]
pub struct JobMirror {
    name: String,
    input: Index,
    reply: Index,
    #[serde(default)]
    more: Vec<Index>,
    log: Option<Index>,
    jobs: Option<Index>,
    data: Option<Index>,
    #[serde(default = "none")]
    by_name: Pairs,
}

fn none() -> Pairs {
    Pairs(Vec::new())
}

impl Message for Job {
    type Mirror = JobMirror;
    const GOOD: (&'static str, &'static [Kind]) = (
        "{\"name\":\"\",\"input\":0,\"reply\":1,\"more\":[4],\"data\":2,\"by_name\":{\"a\":3}}",
        &[
            Kind::PipeReader,
            Kind::End,
            Kind::Blob,
            Kind::Null,
            Kind::Directory,
        ],
    );

    fn wants(mirror: &JobMirror, wants: &mut Wants) {
        wants.push((mirror.input.0, Want::Anything));
        wants.push((mirror.reply.0, Want::End));
        wants.extend(mirror.more.iter().map(|index| (index.0, Want::Anything)));
        wants.extend(mirror.log.iter().map(|index| (index.0, Want::Anything)));
        wants.extend(mirror.jobs.iter().map(|index| (index.0, Want::End)));
        wants.extend(mirror.data.iter().map(|index| (index.0, Want::Blob)));
        let mut pairs: Vec<_> = mirror.by_name.0.iter().enumerate().collect();
        pairs.sort_by_key(|(place, (key, _))| (!mirror.by_name.is_last(*place), key));
        wants.extend(
            pairs
                .iter()
                .map(|(_, (_, index))| (index.0, Want::Anything)),
        );
    }

    fn holds(&self, files: &mut Vec<Inode>) {
        files.push(inode(&self.input));
        files.push(inode(&self.reply));
        files.extend(self.more.iter().map(|fd| inode(&fd.0)));
        files.extend(self.log.iter().map(|fd| inode(&fd.0)));
        files.extend(self.jobs.iter().map(inode));
        files.extend(self.data.iter().map(inode));
        files.extend(self.by_name.values().map(|fd| inode(&fd.0)));
    }

    fn is_like(&self, mirror: &JobMirror) -> bool {
        let by_name = &mirror.by_name;
        let last = (0..by_name.0.len()).filter(|&place| by_name.is_last(place));
        self.name == mirror.name && self.by_name.len() == last.count()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Nothing,
    Open(Fd),
    Two(Fd, Fd),
    Ends {
        tx: Sender<Request>,
        rx: Receiver<Request>,
    },
    Data(Blob),
    Either(Result<Fd, u8>),
    List(Vec<Request>),
}

#[derive(Debug, Deserialize)]
#[serde(rename = "Request")]
pub enum RequestMirror {
    Nothing,
    Open(Index),
    Two(Index, Index),
    Ends { tx: Index, rx: Index },
    Data(Index),
    Either(Result<Index, u8>),
    List(Vec<RequestMirror>),
}

impl Message for Request {
    type Mirror = RequestMirror;
    const GOOD: (&'static str, &'static [Kind]) = (
        "{\"List\":[\"Nothing\",{\"Ends\":{\"rx\":1,\"tx\":0}},{\"Two\":[3,2]},{\"Data\":4}]}",
        &[
            Kind::End,
            Kind::End,
            Kind::Null,
            Kind::PipeWriter,
            Kind::EmptyBlob,
        ],
    );

    fn wants(mirror: &RequestMirror, wants: &mut Wants) {
        match mirror {
            RequestMirror::Nothing | RequestMirror::Either(Err(_)) => {}
            RequestMirror::Open(index) | RequestMirror::Either(Ok(index)) => {
                wants.push((index.0, Want::Anything));
            }
            RequestMirror::Two(a, b) => {
                wants.extend([(a.0, Want::Anything), (b.0, Want::Anything)]);
            }
            RequestMirror::Ends { tx, rx } => wants.extend([(tx.0, Want::End), (rx.0, Want::End)]),
            RequestMirror::Data(index) => wants.push((index.0, Want::Blob)),
            RequestMirror::List(list) => {
                list.iter().for_each(|mirror| Request::wants(mirror, wants))
            }
        }
    }

    fn holds(&self, files: &mut Vec<Inode>) {
        match self {
            Request::Nothing | Request::Either(Err(_)) => {}
            Request::Open(fd) | Request::Either(Ok(fd)) => files.push(inode(&fd.0)),
            Request::Two(a, b) => files.extend([inode(&a.0), inode(&b.0)]),
            Request::Ends { tx, rx } => files.extend([inode(tx), inode(rx)]),
            Request::Data(blob) => files.push(inode(blob)),
            Request::List(list) => list.iter().for_each(|request| request.holds(files)),
        }
    }

    fn is_like(&self, mirror: &RequestMirror) -> bool {
        match (self, mirror) {
            (Request::Either(Err(number)), RequestMirror::Either(Err(mirror))) => number == mirror,
            (Request::List(list), RequestMirror::List(mirrors)) => {
                list.len() == mirrors.len()
                    && list
                        .iter()
                        .zip(mirrors)
                        .all(|(request, mirror)| request.is_like(mirror))
            }
            (Request::Nothing, RequestMirror::Nothing)
            | (Request::Open(_), RequestMirror::Open(_))
            | (Request::Two(..), RequestMirror::Two(..))
            | (Request::Ends { .. }, RequestMirror::Ends { .. })
            | (Request::Data(_), RequestMirror::Data(_))
            | (Request::Either(Ok(_)), RequestMirror::Either(Ok(_))) => true,
            _ => false,
        }
    }
}

/// As deep as one likes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tree(Option<Fd>, Vec<Tree>);

#[derive(Debug, Deserialize)]
pub struct TreeMirror(Option<Index>, Vec<TreeMirror>);

impl Message for Tree {
    type Mirror = TreeMirror;
    const GOOD: (&'static str, &'static [Kind]) =
        ("[1,[[null,[]],[0,[]]]]", &[Kind::Stream, Kind::Null]);

    fn wants(mirror: &TreeMirror, wants: &mut Wants) {
        wants.extend(mirror.0.iter().map(|index| (index.0, Want::Anything)));
        mirror
            .1
            .iter()
            .for_each(|mirror| Tree::wants(mirror, wants));
    }

    fn holds(&self, files: &mut Vec<Inode>) {
        files.extend(self.0.iter().map(|fd| inode(&fd.0)));
        self.1.iter().for_each(|tree| tree.holds(files));
    }

    fn is_like(&self, mirror: &TreeMirror) -> bool {
        self.0.is_some() == mirror.0.is_some()
            && self.1.len() == mirror.1.len()
            && self
                .1
                .iter()
                .zip(&mirror.1)
                .all(|(tree, mirror)| tree.is_like(mirror))
    }
}
