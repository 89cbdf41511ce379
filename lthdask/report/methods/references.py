"""What the words of a study's methods rest on: as it is cited → the reference."""

REFERENCES = {
    "Alpaydin & Kaynak 1998": (
        "Alpaydin, E., Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Machine "
        "Learning Repository."
    ),
    "Benjamini & Hochberg 1995": (
        "Benjamini, Y., Hochberg, Y. (1995). Controlling the False Discovery Rate: A Practical and "
        "Powerful Approach to Multiple Testing. J. R. Stat. Soc. B 57, 289–300."
    ),
    "Berger 1982": (
        "Berger, R. L. (1982). Multiparameter Hypothesis Testing and Acceptance Sampling. "
        "Technometrics 24, 295–300."
    ),
    "Evci et al. 2020": (
        "Evci, U., Gale, T., Menick, J., Castro, P. S., Elsen, E. (2020). Rigging the Lottery: "
        "Making All Tickets Winners. ICML. arXiv:1911.11134."
    ),
    "Frankle & Carbin 2019": (
        "Frankle, J., Carbin, M. (2019). The Lottery Ticket Hypothesis: Finding Sparse, Trainable "
        "Neural Networks. ICLR. arXiv:1803.03635."
    ),
    "Frankle et al. 2019": (
        "Frankle, J., Dziugaite, G. K., Roy, D. M., Carbin, M. (2019). Stabilizing the Lottery "
        "Ticket Hypothesis. arXiv:1903.01611."
    ),
    "Frankle et al. 2020": (
        "Frankle, J., Dziugaite, G. K., Roy, D. M., Carbin, M. (2020). Linear Mode Connectivity "
        "and the Lottery Ticket Hypothesis. ICML. arXiv:1912.05671."
    ),
    "Frankle et al. 2021": (
        "Frankle, J., Dziugaite, G. K., Roy, D. M., Carbin, M. (2021). Pruning Neural Networks at "
        "Initialization: Why Are We Missing the Mark? ICLR. arXiv:2009.08576."
    ),
    "Gadhikar et al. 2023": (
        "Gadhikar, A. H., Mukherjee, S., Burkholz, R. (2023). Why Random Pruning Is All We Need to "
        "Start Sparse. ICML. arXiv:2210.02412."
    ),
    "He et al. 2016": (
        "He, K., Zhang, X., Ren, S., Sun, J. (2016). Deep Residual Learning for Image Recognition. "
        "CVPR. arXiv:1512.03385."
    ),
    "Kingma & Ba 2015": (
        "Kingma, D. P., Ba, J. (2015). Adam: A Method for Stochastic Optimization. ICLR. "
        "arXiv:1412.6980."
    ),
    "Krizhevsky 2009": (
        "Krizhevsky, A. (2009). Learning Multiple Layers of Features from Tiny Images. Technical "
        "report, University of Toronto."
    ),
    "LeCun et al. 1998": (
        "LeCun, Y., Bottou, L., Bengio, Y., Haffner, P. (1998). Gradient-Based Learning Applied to "
        "Document Recognition. Proc. IEEE 86, 2278–2324."
    ),
    "Lee et al. 2019": (
        "Lee, N., Ajanthan, T., Torr, P. H. S. (2019). SNIP: Single-shot Network Pruning based on "
        "Connection Sensitivity. ICLR. arXiv:1810.02340."
    ),
    "Lee et al. 2021": (
        "Lee, J., Park, S., Mo, S., Ahn, S., Shin, J. (2021). Layer-adaptive Sparsity for the "
        "Magnitude-based Pruning. ICLR. arXiv:2010.07611."
    ),
    "Liu et al. 2019": (
        "Liu, Z., Sun, M., Zhou, T., Huang, G., Darrell, T. (2019). Rethinking the Value of "
        "Network Pruning. ICLR. arXiv:1810.05270."
    ),
    "Loshchilov & Hutter 2017": (
        "Loshchilov, I., Hutter, F. (2017). SGDR: Stochastic Gradient Descent with Warm Restarts. "
        "ICLR. arXiv:1608.03983."
    ),
    "Loshchilov & Hutter 2019": (
        "Loshchilov, I., Hutter, F. (2019). Decoupled Weight Decay Regularization. ICLR. "
        "arXiv:1711.05101."
    ),
    "Morcos et al. 2019": (
        "Morcos, A. S., Yu, H., Paganini, M., Tian, Y. (2019). One Ticket to Win Them All: "
        "Generalizing Lottery Ticket Initializations Across Datasets and Optimizers. NeurIPS. "
        "arXiv:1906.02773."
    ),
    "Netzer et al. 2011": (
        "Netzer, Y., Wang, T., Coates, A., Bissacco, A., Wu, B., Ng, A. Y. (2011). Reading Digits "
        "in Natural Images with Unsupervised Feature Learning. NIPS Workshop on Deep Learning and "
        "Unsupervised Feature Learning."
    ),
    "Paszke et al. 2019": (
        "Paszke, A., Gross, S., Massa, F., et al. (2019). PyTorch: An Imperative Style, "
        "High-Performance Deep Learning Library. NeurIPS. arXiv:1912.01703."
    ),
    "Renda et al. 2020": (
        "Renda, A., Frankle, J., Carbin, M. (2020). Comparing Rewinding and Fine-tuning in Neural "
        "Network Pruning. ICLR. arXiv:2003.02389."
    ),
    "Sandler et al. 2018": (
        "Sandler, M., Howard, A., Zhu, M., Zhmoginov, A., Chen, L.-C. (2018). MobileNetV2: "
        "Inverted Residuals and Linear Bottlenecks. CVPR. arXiv:1801.04381."
    ),
    "Schuirmann 1987": (
        "Schuirmann, D. J. (1987). A Comparison of the Two One-Sided Tests Procedure and the Power "
        "Approach for Assessing the Equivalence of Average Bioavailability. J. Pharmacokinet. "
        "Biopharm. 15, 657–680."
    ),
    "Simonyan & Zisserman 2015": (
        "Simonyan, K., Zisserman, A. (2015). Very Deep Convolutional Networks for Large-Scale "
        "Image Recognition. ICLR. arXiv:1409.1556."
    ),
    "Smith & Topin 2019": (
        "Smith, L. N., Topin, N. (2019). Super-Convergence: Very Fast Training of Neural Networks "
        "Using Large Learning Rates. Proc. SPIE 11006, 1100612. arXiv:1708.07120."
    ),
    "Smith 2018": (
        "Smith, L. N. (2018). A Disciplined Approach to Neural Network Hyper-Parameters: Part 1 – "
        "Learning Rate, Batch Size, Momentum, and Weight Decay. arXiv:1803.09820."
    ),
    "Sutskever et al. 2013": (
        "Sutskever, I., Martens, J., Dahl, G., Hinton, G. (2013). On the Importance of "
        "Initialization and Momentum in Deep Learning. ICML. PMLR 28, 1139–1147."
    ),
    "Szegedy et al. 2015": (
        "Szegedy, C., Liu, W., Jia, Y., Sermanet, P., Reed, S., Anguelov, D., Erhan, D., "
        "Vanhoucke, V., Rabinovich, A. (2015). Going Deeper with Convolutions. CVPR. "
        "arXiv:1409.4842."
    ),
    "Szegedy et al. 2016": (
        "Szegedy, C., Vanhoucke, V., Ioffe, S., Shlens, J., Wojna, Z. (2016). Rethinking the "
        "Inception Architecture for Computer Vision. CVPR. arXiv:1512.00567."
    ),
    "Tanaka et al. 2020": (
        "Tanaka, H., Kunin, D., Yamins, D. L. K., Ganguli, S. (2020). Pruning Neural Networks "
        "without Any Data by Iteratively Conserving Synaptic Flow. NeurIPS. arXiv:2006.05467."
    ),
    "the lthdask developers 2026": (
        "The lthdask developers (2026). lthdask: lottery ticket grids at scale. Software."
    ),
    "Wang et al. 2020": (
        "Wang, C., Zhang, G., Grosse, R. (2020). Picking Winning Tickets Before Training by "
        "Preserving Gradient Flow. ICLR. arXiv:2002.07376."
    ),
    "Xiao et al. 2017": (
        "Xiao, H., Rasul, K., Vollgraf, R. (2017). Fashion-MNIST: A Novel Image Dataset for "
        "Benchmarking Machine Learning Algorithms. arXiv:1708.07747."
    ),
    "Yosinski et al. 2014": (
        "Yosinski, J., Clune, J., Bengio, Y., Lipson, H. (2014). How Transferable Are Features in "
        "Deep Neural Networks? NeurIPS. arXiv:1411.1792."
    ),
    "You et al. 2020": (
        "You, H., Li, C., Xu, P., Fu, Y., Wang, Y., Chen, X., Baraniuk, R. G., Wang, Z., Lin, Y. "
        "(2020). Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks. "
        "ICLR. arXiv:1909.11957."
    ),
    "Zagoruyko & Komodakis 2016": (
        "Zagoruyko, S., Komodakis, N. (2016). Wide Residual Networks. BMVC. arXiv:1605.07146."
    ),
    "Zhou et al. 2019": (
        "Zhou, H., Lan, J., Liu, R., Yosinski, J. (2019). Deconstructing Lottery Tickets: Zeros, "
        "Signs, and the Supermask. NeurIPS. arXiv:1905.01067."
    ),
}
"""In the order in which a list of them stands."""
