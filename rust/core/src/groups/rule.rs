//! The rules by name, and the one function that draws by any of them.

use super::slots::{Draw, Drawn};
use super::{Labelled, nearest, overlap, oversample, pool, quadrant};
use crate::index::{Engine, Few, Index, Listed, NeighborIndex};
use crate::{Result, check, memory};

/// How groups are chosen around their centres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// C of the K nearest neighbours of each centre.
    Nearest {
        /// Whether channel 0 is the centre.
        include_center: bool,
        /// Groups of each centre.
        rounds: usize,
    },
    /// `count` groups, round after round of all centres; no set of a centre is
    /// repeated until all its sets are spent.
    Oversample {
        /// Groups in all.
        count: usize,
    },
    /// One of the K nearest neighbours in each quadrant around the centre.
    Quadrant {
        /// Groups of each centre.
        rounds: usize,
    },
    /// Groups grown from the centre: each next position overlaps those before it.
    Overlap {
        /// Pixels per side of a diffraction pattern (N).
        window: usize,
        /// The share of a window that two positions must have in common.
        min_overlap: f64,
        /// Groups of each centre.
        rounds: usize,
    },
    /// A sample of the pool of all groups around the centres, which rise.
    Pool {
        /// Groups in the sample; without it the whole pool, in lexicographic order.
        count: Option<usize>,
    },
}

/// What is known of the neighbours of a scan's positions before a draw.
#[derive(Clone, Copy)]
pub enum Known<'a> {
    /// Nothing: what the draw needs is built for it.
    Nothing {
        /// The index to build.
        engine: Engine,
        /// Neighbours have the same label as the centre, if there are labels.
        labels: Option<&'a [i32]>,
    },
    /// An index of the whole scan.
    Index(&'a Index),
    /// An index for each label.
    Labelled(&'a Labelled<Index>),
    /// The neighbours themselves.
    Lists(Listed<'a>),
}

impl Rule {
    /// Draws groups by this rule, and says which engine searched, if any did.
    ///
    /// The groups are a function of the rule, the positions and the other
    /// fields of `draw`. What is known of the neighbours only saves time.
    pub fn draw(self, draw: &Draw<'_, Known<'_>>) -> Result<(Drawn, Option<Engine>)> {
        if let Some(rounds) = self.rounds_of_centers(draw) {
            return Ok((centers_alone(draw, rounds)?, None));
        }
        match *draw.index {
            Known::Nothing { engine, labels } => self.draw_unindexed(draw, engine, labels),
            Known::Index(index) => Ok((self.draw_whole(&draw.on(index))?, Some(index.engine()))),
            Known::Labelled(index) => Ok((self.draw_on(&draw.on(index))?, Some(engine_of(index)))),
            Known::Lists(ref lists) => {
                lists.check_width(draw.k)?;
                Ok((self.draw_whole(&draw.on(lists))?, None))
            }
        }
    }

    /// How many groups a centre has, where each is the centre and nothing else.
    fn rounds_of_centers<I>(self, draw: &Draw<'_, I>) -> Option<usize> {
        match self {
            Self::Nearest { rounds, .. } | Self::Overlap { rounds, .. } => {
                (draw.c == 1 && draw.limits.is_none()).then_some(rounds)
            }
            _ => None,
        }
    }

    /// Builds what the draw needs: an index for each label, of what is around a
    /// few centres, or of the whole scan.
    fn draw_unindexed(
        self,
        draw: &Draw<'_, Known<'_>>,
        engine: Engine,
        labels: Option<&[i32]>,
    ) -> Result<(Drawn, Option<Engine>)> {
        let (positions, threads) = (draw.positions, draw.threads);
        if let Some(labels) = labels {
            let build = |own: &[f64]| Index::build(own, engine, threads);
            let index = Labelled::build(positions, labels, build)?;
            return Ok((self.draw_on(&draw.on(&index))?, Some(engine_of(&index))));
        }
        if let Some(include_center) = self.plain(draw)
            && engine != Engine::KdTree
            && let Some(few) = Few::new(positions, draw.centers.len(), threads)?
        {
            let drawn = nearest::draw_plain(&draw.on(&few), include_center)?;
            return Ok((drawn, Some(Engine::Grid)));
        }
        let index = Index::build(positions, engine, threads)?;
        Ok((self.draw_whole(&draw.on(&index))?, Some(index.engine())))
    }

    /// Draws where every position has its K neighbours, if the scan is that long.
    fn draw_whole<I: NeighborIndex>(self, draw: &Draw<'_, I>) -> Result<Drawn> {
        match self.plain(draw) {
            Some(include_center) => nearest::draw_plain(draw, include_center),
            None => self.draw_on(draw),
        }
    }

    /// Whether one group a centre is drawn from its K nearest neighbours, which
    /// is faster than the general case; and if so, whether channel 0 is the
    /// centre.
    fn plain<I>(self, draw: &Draw<'_, I>) -> Option<bool> {
        match self {
            Self::Nearest {
                include_center,
                rounds: 1,
            } if draw.limits.is_none() => Some(include_center),
            _ => None,
        }
    }

    fn draw_on<I: NeighborIndex>(self, draw: &Draw<'_, I>) -> Result<Drawn> {
        match self {
            Self::Nearest {
                include_center,
                rounds,
            } => nearest::draw_rounds(draw, include_center, rounds),
            Self::Oversample { count } => oversample::draw(draw, count),
            Self::Quadrant { rounds } => quadrant::draw(draw, rounds),
            Self::Overlap {
                window,
                min_overlap,
                rounds,
            } => overlap::draw(draw, window, min_overlap, rounds),
            Self::Pool { count: Some(count) } => pool::draw(draw, count),
            Self::Pool { count: None } => pool::list(draw),
        }
    }
}

/// A tree, if that of any label is.
fn engine_of(index: &Labelled<Index>) -> Engine {
    let mut engines = index.indexes().map(Index::engine);
    let tree = engines.find(|&engine| engine == Engine::KdTree);
    tree.unwrap_or(Engine::Grid)
}

/// Groups of one position: nothing is searched.
fn centers_alone<I>(draw: &Draw<'_, I>, rounds: usize) -> Result<Drawn> {
    const WHAT: &str = "The centers of groups";
    let n = draw.positions.len() / 2;
    check::group(n, draw.k, draw.c)?;
    check::indices("centers", draw.centers, n)?;
    let count = rounds.saturating_mul(draw.centers.len());
    let mut groups = memory::room(WHAT, count)?;
    while groups.len() < count {
        groups.extend(draw.centers);
    }
    Ok(Drawn {
        centers: memory::copy(WHAT, &groups)?,
        groups,
        ..Drawn::default()
    })
}
